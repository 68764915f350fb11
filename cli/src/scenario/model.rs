//! What a scenario file says. The JSON Schema of the format is made from these types and their comments.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::matching::{BodyMatch, HeaderMatch, LineMatch, TextMatch};
use super::node::Located;
use super::values::{Content, Duration, OneOrMany, Short, Text};
use crate::run::Level;

/// Tests of a filter, or of a chain of filters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Scenarios of proxy-wasm")]
pub struct File {
    /// The filter under test: its file, by a path that begins at this one's folder, or a map that says more of it.
    #[serde(default)]
    pub filter: Option<Short<Filter>>,
    /// A chain of filters in place of `filter`: requests pass it in order, responses in reverse.
    #[serde(default)]
    pub filters: Vec<Short<Filter>>,
    /// What answers the calls that filters make, by the name that they call.
    #[serde(default)]
    pub upstreams: BTreeMap<String, OneOrMany<Answer>>,
    /// Properties (source.address) and nginx variables of all requests.
    #[serde(default)]
    pub properties: BTreeMap<String, Text>,
    /// The least severe lines of the log that there are.
    #[serde(default)]
    pub log_level: Option<Level>,
    /// The tests. Each has filters of its own, which know nothing of the other tests.
    pub tests: Vec<Located<Test>>,
}

/// A filter, with the options of `load`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The .wasm file; a path that begins where the scenario file is.
    pub file: String,
    /// Its name, for the log and the metrics. Default: what the file is called.
    #[serde(default)]
    pub name: Option<String>,
    /// Its root context. Default: its name.
    #[serde(default)]
    pub root_id: Option<String>,
    /// What `proxy_on_configure` reads. Default: nothing.
    #[serde(default)]
    pub configuration: Option<Content>,
    /// What `proxy_on_vm_start` reads.
    #[serde(default)]
    pub vm_configuration: Option<Content>,
    /// Filters with one id share data with each other.
    #[serde(default)]
    pub vm_id: String,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, Text>,
    /// Bytes of memory that it may have.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    /// How long a callback may run.
    #[serde(default)]
    pub time_limit: Option<Duration>,
    /// The same for its start, and for each of `proxy_on_vm_start` and `proxy_on_configure`.
    #[serde(default)]
    pub start_time_limit: Option<Duration>,
    /// How long a request that it pauses waits.
    #[serde(default)]
    pub pause_timeout: Option<Duration>,
    /// Bytes of a body that it may hold.
    #[serde(default)]
    pub body_limit: Option<usize>,
    /// What becomes of requests that it fails on.
    #[serde(default)]
    pub fail: Fail,
    /// It rewrites bodies, also those of gRPC.
    #[serde(default)]
    pub body: bool,
    /// Requests wait for the calls that it makes, whatever it answers.
    #[serde(default)]
    pub calls_hold: Option<bool>,
}

/// The option `fail` of `load`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fail {
    /// They are refused.
    #[default]
    Closed,
    /// They continue without it.
    Open,
}

/// The answer to a call.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Only calls of this method get it.
    #[serde(default)]
    pub method: Option<String>,
    /// Only calls for this path get it.
    #[serde(default)]
    pub path: Option<String>,
    /// Default: 200.
    #[serde(default)]
    pub status: Option<u16>,
    #[serde(default)]
    pub headers: BTreeMap<String, OneOrMany<Text>>,
    #[serde(default)]
    pub body: Option<Content>,
    #[serde(default)]
    pub trailers: BTreeMap<String, OneOrMany<Text>>,
    /// How long it takes.
    #[serde(default)]
    pub after: Duration,
    /// In place of an answer: what the call fails at.
    #[serde(default)]
    pub fails: Option<CallFailure>,
}

/// What a call fails at, in the words of `proxy_get_status`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallFailure {
    Resolver,
    Connect,
    Refused,
    Tls,
    Timeout,
    Closed,
    Protocol,
}

/// One test.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// What it shows.
    pub name: String,
    /// The filter of this test, in place of the file's.
    #[serde(default)]
    pub filter: Option<Short<Filter>>,
    /// A chain of filters in place of `filter`.
    #[serde(default)]
    pub filters: Vec<Short<Filter>>,
    /// The configuration of the filter (of the first one, in a chain) in this test.
    #[serde(default)]
    pub configuration: Option<Content>,
    /// Answers to calls in this test, in place of the file's of the same names.
    #[serde(default)]
    pub upstreams: BTreeMap<String, OneOrMany<Answer>>,
    /// The filter does not load, or refuses its configuration; the text is a part of the error.
    #[serde(default)]
    pub refused: Option<TextMatch>,
    /// A request of a client.
    #[serde(default)]
    pub request: Option<Request>,
    /// What the upstream answers to it. Default: 200 with an empty body.
    #[serde(default)]
    pub response: Option<Response>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Option<Located<Expect>>,
    /// More that happens, one after the other, to the same filters.
    #[serde(default)]
    pub steps: Vec<Located<Step>>,
}

/// Something that happens: a request, or time passes, or another worker does something.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// A request of a client.
    #[serde(default)]
    pub request: Option<Request>,
    /// What the upstream answers to it. Default: 200 with an empty body.
    #[serde(default)]
    pub response: Option<Response>,
    /// How often the request is sent. Expectations are of each. Default: 1.
    #[serde(default)]
    pub times: Option<u32>,
    /// So much time passes: filters tick.
    #[serde(default)]
    pub advance: Option<Duration>,
    /// Another worker puts a message into a queue.
    #[serde(default)]
    pub message: Option<Message>,
    /// Another worker sets shared data.
    #[serde(default)]
    pub share: Option<Share>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Option<Located<Expect>>,
}

/// A request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Default: GET.
    #[serde(default)]
    pub method: Option<String>,
    /// Path and query. Default: /.
    #[serde(default)]
    pub path: Option<String>,
    /// `host` is localhost unless it is named here.
    #[serde(default)]
    pub headers: BTreeMap<String, OneOrMany<Text>>,
    #[serde(default)]
    pub body: Option<Content>,
    /// Properties and nginx variables of this request.
    #[serde(default)]
    pub properties: BTreeMap<String, Text>,
}

/// A response of the upstream.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// Default: 200.
    #[serde(default)]
    pub status: Option<u16>,
    #[serde(default)]
    pub headers: BTreeMap<String, OneOrMany<Text>>,
    #[serde(default)]
    pub body: Option<Content>,
    /// A body that comes in pieces.
    #[serde(default)]
    pub chunks: Vec<Content>,
}

/// A message in a queue.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The name of the queue.
    pub queue: String,
    #[serde(default)]
    pub vm_id: String,
    pub data: Content,
}

/// Shared data.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    #[serde(default)]
    pub vm_id: String,
    /// Values by key.
    pub data: BTreeMap<String, Content>,
}

/// What must come of a step. What is not named may be anything; but a filter that fails fails the test, unless `error` says
/// that it must.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The status that the client gets.
    #[serde(default)]
    pub status: Option<u16>,
    /// Headers that the client gets, by name.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderMatch>,
    /// The body that the client gets.
    #[serde(default)]
    pub body: Option<BodyMatch>,
    /// What the upstream gets; `false` when the request must not reach it.
    #[serde(default)]
    pub upstream: Option<UpstreamExpect>,
    /// Lines that must be in the log.
    #[serde(default)]
    pub log: Vec<LineMatch>,
    /// Lines that must not be there.
    #[serde(default)]
    pub no_log: Vec<LineMatch>,
    /// The calls that filters make in this step, all of them and in order.
    #[serde(default)]
    pub calls: Option<Vec<CallExpect>>,
    /// Metrics, by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, i64>,
    /// Shared data, by key; `null` for none.
    #[serde(default)]
    pub shared_data: BTreeMap<String, HeaderMatch>,
    /// The vm_id of that data.
    #[serde(default)]
    pub vm_id: String,
    /// The client sees that the response is not whole, or gets none.
    #[serde(default)]
    pub cut: bool,
    /// A filter fails; the text is a part of the cause.
    #[serde(default)]
    pub error: Option<TextMatch>,
}

/// What the upstream gets.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(with = "UpstreamSchema")]
pub struct UpstreamExpect {
    /// The request does not reach it.
    pub none: bool,
    pub message: MessageExpect,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it is there for its schema")]
enum UpstreamSchema {
    Reached(bool),
    Message(Box<MessageExpect>),
}

/// What a request must be.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageExpect {
    #[serde(default)]
    pub method: Option<TextMatch>,
    #[serde(default)]
    pub path: Option<TextMatch>,
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderMatch>,
    #[serde(default)]
    pub body: Option<BodyMatch>,
}

/// What a call must be.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallExpect {
    #[serde(default)]
    pub upstream: Option<TextMatch>,
    #[serde(default)]
    pub method: Option<TextMatch>,
    #[serde(default)]
    pub path: Option<TextMatch>,
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderMatch>,
    #[serde(default)]
    pub body: Option<BodyMatch>,
}

impl<'de> Deserialize<'de> for UpstreamExpect {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = UpstreamExpect;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false, or a map")
            }
            fn visit_bool<E>(self, reached: bool) -> Result<UpstreamExpect, E> {
                Ok(UpstreamExpect { none: !reached, message: MessageExpect::default() })
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<UpstreamExpect, A::Error> {
                let message =
                    MessageExpect::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(UpstreamExpect { none: false, message })
            }
        }
        deserializer.deserialize_any(Either)
    }
}
