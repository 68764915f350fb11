//! What came of a request.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::core::ports::Stores as _;
use crate::core::store::Value;
use crate::play::calls::Call;
use crate::play::chain::{Chain, LoadError, text};
use crate::play::flow::{Access, Flow, Planned};
use crate::play::headers::Headers;
use crate::play::request::Request;
use crate::play::trace::{Step, metrics};

/// See the module. This is the JSON that `run --json` prints.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What filters were entered for, in order.
    pub steps: Vec<Step>,
    /// The request as the client sent it.
    pub request: Option<Message>,
    /// As it went to the upstream; nothing when it did not.
    pub forwarded: Option<Message>,
    /// What the upstream answered.
    pub upstream: Option<Message>,
    /// What the client got.
    pub response: Option<Message>,
    /// The answer is a filter's own.
    pub answered_by_filter: bool,
    pub calls: Vec<Call>,
    /// Metrics that filters count, as `NAME{plugin}`.
    pub metrics: BTreeMap<String, Number>,
    /// Shared data by key.
    pub shared_data: BTreeMap<String, String>,
    /// What failed.
    pub failed: Vec<String>,
}

/// A request or a response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `GET /path`, or the status.
    pub first_line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Number {
    Count(i128),
    /// How many values a histogram has, and their sum.
    Histogram {
        count: u64,
        sum: f64,
    },
}

/// How many keys of shared data are shown.
const MOST_KEYS: usize = 1000;

impl Report {
    /// Plays the request.
    pub fn play(
        mut chain: Chain,
        wait: u64,
        request: Request,
        body: Vec<u8>,
        planned: &Planned,
        vm_ids: &[String],
    ) -> Self {
        let mut report =
            Self { request: Some(Message::request(&request, &body)), ..Self::default() };
        let mut flow = Flow::new(&mut chain, request, body);
        let access = flow.access();
        match &access {
            Access::Forward => {
                report.forwarded = Some(Message::request(&flow.request(), flow.body()));
                let Planned { status, headers, pieces } = planned;
                report.upstream = Some(Message::response(*status, headers, &pieces.concat()));
            }
            Access::Respond(_) => report.answered_by_filter = true,
            Access::Close => {}
        }
        match flow.respond(access, planned) {
            Ok(body) => {
                let request = flow.request();
                let headers = &request.response_headers;
                report.response = Some(Message::response(request.status, headers, &body));
            }
            Err(cut) => {
                report.failed.push(format!("the client got no whole response: {}", cut.0));
            }
        }
        flow.end();
        chain.settle();
        if wait > 0 {
            chain.pass_until(wait, |_| false);
        }
        report.collect(chain, vm_ids)
    }

    /// A chain that was not made.
    pub fn not_loaded(chain: Chain, error: LoadError) -> Self {
        let mut report = Self::default().collect(chain, &[]);
        report.failed = vec![error.text];
        report
    }

    fn collect(mut self, mut chain: Chain, vm_ids: &[String]) -> Self {
        self.shared_data = shared_data(&chain, vm_ids);
        chain.end();
        self.metrics = guest_metrics(&chain);
        let steps = std::mem::take(&mut chain.trace.steps);
        let failures = steps.iter().filter_map(|step| {
            Some(format!("filter \"{}\": {}", step.filter, step.error.as_ref()?))
        });
        self.failed.extend(failures);
        self.steps = steps;
        self.calls = std::mem::take(&mut chain.calls);
        self
    }
}

impl Message {
    /// A request as it is now.
    pub fn request(request: &Request, body: &[u8]) -> Self {
        let host = request.authority.iter().map(|host| ("Host".to_owned(), text(host)));
        Self {
            first_line: format!("{} {}", text(&request.method), text(request.path_now())),
            headers: host.chain(lines(&request.headers)).collect(),
            body: text(body),
        }
    }

    /// A response.
    pub fn response(status: u16, headers: &Headers, body: &[u8]) -> Self {
        Self { first_line: status.to_string(), headers: lines(headers).collect(), body: text(body) }
    }
}

fn lines(headers: &Headers) -> impl Iterator<Item = (String, String)> {
    headers.iter().map(|(name, value)| (text(name), text(value)))
}

/// What filters count, by `NAME` and the filter in braces.
pub fn guest_metrics(chain: &Chain) -> BTreeMap<String, Number> {
    let mut all = BTreeMap::new();
    for series in metrics(&chain.server) {
        // Ours have help texts of their own.
        if series.help != series.name {
            continue;
        }
        let number = match series.value {
            Value::Number(number) => Number::Count(number),
            Value::Histogram { buckets, sum } => {
                let count = buckets.last().map_or(0, |(_, count)| *count);
                Number::Histogram { count, sum }
            }
        };
        let filter = series.labels.first().map(|(_, filter)| filter.as_str()).unwrap_or_default();
        all.insert(format!("{}{{{filter}}}", series.name), number);
    }
    all
}

fn shared_data(chain: &Chain, vm_ids: &[String]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let Some(shared) = chain.server.shared() else { return all };
    for vm_id in vm_ids {
        let keys = shared.keys(vm_id.as_bytes(), MOST_KEYS).unwrap_or_default();
        for key in keys {
            let mut value = Vec::new();
            if let Ok(Some(_)) = shared.get(vm_id.as_bytes(), &key, &mut value) {
                all.insert(text(&key), text(&value));
            }
        }
    }
    all
}
