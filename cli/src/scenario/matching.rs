//! What a text, a header, a body or a line of the log must be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::node::deserialize_text;
use super::values::{Short, Text};
use crate::play::trace::level_word;
use crate::run::Level;

/// A text that it must be, or rules.
#[derive(Clone, Debug)]
pub struct TextMatch(Short<Rules>);

/// Rules for a text, all of which must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// It is this.
    #[serde(default)]
    equals: Option<Text>,
    /// It has this in it.
    #[serde(default)]
    contains: Option<Text>,
    #[serde(default)]
    starts_with: Option<Text>,
    #[serde(default)]
    ends_with: Option<Text>,
    /// A regular expression finds something in it.
    #[serde(default)]
    matches: Option<Pattern>,
    /// It does not have this in it.
    #[serde(default)]
    lacks: Option<Text>,
}

#[derive(Clone, Debug)]
struct Pattern(Regex);

impl TextMatch {
    /// Why a text is not what it must be. A plain text must be equal to it.
    pub fn check(&self, text: &str) -> Result<(), String> {
        match &self.0 {
            Short::Text(expected) if expected == text => Ok(()),
            Short::Text(expected) => Err(format!("is {text:?}, not {expected:?}")),
            Short::Long(rules) => rules.check(text),
        }
    }

    /// The same; but a plain text must only be in it.
    pub fn check_part(&self, text: &str) -> Result<(), String> {
        match &self.0 {
            Short::Text(part) if text.contains(part.as_str()) => Ok(()),
            Short::Text(part) => Err(format!("is {text:?}, which does not contain {part:?}")),
            Short::Long(rules) => rules.check(text),
        }
    }
}

impl Rules {
    fn check(&self, text: &str) -> Result<(), String> {
        let wrong =
            |word: &str, rule: &str| Err(format!("is {text:?}, which does not {word} {rule:?}"));
        match self {
            Self { equals: Some(Text(rule)), .. } if text != rule => wrong("equal", rule),
            Self { contains: Some(Text(rule)), .. } if !text.contains(rule.as_str()) => {
                wrong("contain", rule)
            }
            Self { starts_with: Some(Text(rule)), .. } if !text.starts_with(rule.as_str()) => {
                wrong("start with", rule)
            }
            Self { ends_with: Some(Text(rule)), .. } if !text.ends_with(rule.as_str()) => {
                wrong("end with", rule)
            }
            Self { matches: Some(Pattern(rule)), .. } if !rule.is_match(text) => {
                wrong("match", rule.as_str())
            }
            Self { lacks: Some(Text(rule)), .. } if text.contains(rule.as_str()) => {
                Err(format!("is {text:?}, which contains {rule:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// What a header must be: a text or rules for its one line, a list for several lines, `null` when it must not be there.
#[derive(Clone, Debug)]
pub enum HeaderMatch {
    Absent,
    One(TextMatch),
    Lines(Vec<TextMatch>),
}

impl HeaderMatch {
    /// Why the lines of a header are not what they must be.
    pub fn check(&self, lines: &[&str]) -> Result<(), String> {
        match self {
            Self::Absent if lines.is_empty() => Ok(()),
            Self::Absent => Err(format!("is there: {lines:?}")),
            Self::One(_) if lines.is_empty() => Err("is not there".into()),
            Self::One(rule) => match lines {
                [line] => rule.check(line),
                _ => Err(format!("has {} lines: {lines:?}", lines.len())),
            },
            Self::Lines(rules) if rules.len() != lines.len() => {
                Err(format!("has {} lines, not {}: {lines:?}", lines.len(), rules.len()))
            }
            Self::Lines(rules) => {
                rules.iter().zip(lines).try_for_each(|(rule, line)| rule.check(line))
            }
        }
    }
}

/// What a body must be: a text or rules.
#[derive(Clone, Debug)]
pub struct BodyMatch(Short<BodyRules>);

/// Rules for a body, all of which must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BodyRules {
    /// It is this.
    #[serde(default)]
    equals: Option<Text>,
    /// It has this in it.
    #[serde(default)]
    contains: Option<Text>,
    #[serde(default)]
    starts_with: Option<Text>,
    #[serde(default)]
    ends_with: Option<Text>,
    /// A regular expression finds something in it.
    #[serde(default)]
    matches: Option<Pattern>,
    /// It does not have this in it.
    #[serde(default)]
    lacks: Option<Text>,
    /// It has so many bytes.
    #[serde(default)]
    bytes: Option<usize>,
    /// It is JSON, and the values at these paths (RFC 9535: `$.user.name`) are these.
    #[serde(default, deserialize_with = "paths")]
    json: BTreeMap<String, Value>,
}

impl BodyMatch {
    /// Why a body is not what it must be.
    pub fn check(&self, body: &str) -> Result<(), String> {
        let rules = match &self.0 {
            Short::Text(text) => return TextMatch(Short::Text(text.clone())).check(body),
            Short::Long(rules) => rules,
        };
        let BodyRules { equals, contains, starts_with, ends_with, matches, lacks, .. } =
            rules.clone();
        Rules { equals, contains, starts_with, ends_with, matches, lacks }.check(body)?;
        if let Some(bytes) = rules.bytes
            && bytes != body.len()
        {
            return Err(format!("has {} bytes, not {bytes}", body.len()));
        }
        if rules.json.is_empty() {
            return Ok(());
        }
        let value: Value = serde_json::from_str(body)
            .map_err(|error| format!("is {body:?}, which is not JSON: {error}"))?;
        for (path, expected) in &rules.json {
            let parsed = JsonPath::parse(path).map_err(|error| error.to_string())?;
            let found = parsed.query(&value).all();
            let is = match (found.as_slice(), expected) {
                ([one], expected) if same(one, expected) => true,
                (several, Value::Array(expected)) => {
                    several.len() == expected.len()
                        && several.iter().zip(expected).all(|(a, b)| same(a, b))
                }
                ([], Value::Null) => true,
                _ => false,
            };
            if !is {
                let found: Vec<String> = found.iter().map(ToString::to_string).collect();
                let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
                return Err(format!("has {found} at {path}, not {expected}"));
            }
        }
        Ok(())
    }
}

/// Numbers are the same as in JSON: 1 and 1.0.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        _ => one == other,
    }
}

/// Paths are checked where they are read.
fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    let paths = BTreeMap::<String, Value>::deserialize(deserializer)?;
    for path in paths.keys() {
        JsonPath::parse(path)
            .map_err(|error| D::Error::custom(format!("{path:?} is no JSON path: {error}")))?;
    }
    Ok(paths)
}

/// A line of the log: a part of its text, or rules.
#[derive(Clone, Debug)]
pub struct LineMatch(Short<LineRules>);

/// Rules for a line of the log, all of which must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LineRules {
    #[serde(default)]
    level: Option<Level>,
    #[serde(default)]
    equals: Option<Text>,
    #[serde(default)]
    contains: Option<Text>,
    /// A regular expression finds something in it.
    #[serde(default)]
    matches: Option<Pattern>,
}

impl LineMatch {
    /// Whether it is about such a line. A filter's own line may be given without `wasm log NAME: `.
    pub fn is(&self, level: &str, line: &str) -> bool {
        let own = line.strip_prefix("wasm log ").and_then(|rest| Some(rest.split_once(": ")?.1));
        let any = |f: &dyn Fn(&str) -> bool| f(line) || own.is_some_and(f);
        match &self.0 {
            Short::Text(part) => line.contains(part.as_str()),
            Short::Long(rules) => {
                rules.level.is_none_or(|wanted| level_word(wanted.into()) == level)
                    && rules.equals.as_ref().is_none_or(|Text(t)| any(&|line| line == t))
                    && rules.contains.as_ref().is_none_or(|Text(t)| line.contains(t.as_str()))
                    && rules.matches.as_ref().is_none_or(|Pattern(r)| any(&|line| r.is_match(line)))
            }
        }
    }
}

impl fmt::Display for LineMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Short::Text(part) => write!(f, "{part:?}"),
            Short::Long(rules) => {
                let mut parts = Vec::new();
                parts.extend(
                    rules.level.map(|level| format!("level {:?}", level_word(level.into()))),
                );
                for (name, rule) in [("equals", &rules.equals), ("contains", &rules.contains)] {
                    parts.extend(rule.as_ref().map(|Text(text)| format!("{name} {text:?}")));
                }
                parts.extend(
                    rules.matches.as_ref().map(|Pattern(r)| format!("matches {:?}", r.as_str())),
                );
                f.write_str(&parts.join(", "))
            }
        }
    }
}

macro_rules! short {
    ($($name:ident($rules:ty) $title:literal;)*) => {
        $(impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Short::deserialize(deserializer).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                Short::<$rules>::json_schema(generator)
            }
        })*
    };
}

short! {
    TextMatch(Rules) "TextMatch";
    BodyMatch(BodyRules) "BodyMatch";
    LineMatch(LineRules) "LineMatch";
}

impl<'de> Deserialize<'de> for HeaderMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = HeaderMatch;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a map, a list of them, or null")
            }
            fn visit_unit<E>(self) -> Result<HeaderMatch, E> {
                Ok(HeaderMatch::Absent)
            }
            fn visit_str<E>(self, text: &str) -> Result<HeaderMatch, E> {
                Ok(HeaderMatch::One(TextMatch(Short::Text(text.into()))))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HeaderMatch, A::Error> {
                let long = LongHeader::deserialize(MapAccessDeserializer::new(map))?;
                if long.absent {
                    return Ok(HeaderMatch::Absent);
                }
                let LongHeader { equals, contains, starts_with, ends_with, matches, lacks, .. } =
                    long;
                let rules = Rules { equals, contains, starts_with, ends_with, matches, lacks };
                Ok(HeaderMatch::One(TextMatch(Short::Long(rules))))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<HeaderMatch, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = seq.next_element()? {
                    lines.push(line);
                }
                Ok(HeaderMatch::Lines(lines))
            }
        }
        deserialize_text(deserializer, Either)
    }
}

/// Rules for the one line of a header.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongHeader {
    /// It must not be there. (TOML has no `null`.)
    #[serde(default)]
    absent: bool,
    #[serde(default)]
    equals: Option<Text>,
    #[serde(default)]
    contains: Option<Text>,
    #[serde(default)]
    starts_with: Option<Text>,
    #[serde(default)]
    ends_with: Option<Text>,
    /// A regular expression finds something in it.
    #[serde(default)]
    matches: Option<Pattern>,
    #[serde(default)]
    lacks: Option<Text>,
}

impl JsonSchema for HeaderMatch {
    fn schema_name() -> Cow<'static, str> {
        "HeaderMatch".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (text, long, lines) = (
            generator.subschema_for::<Text>(),
            generator.subschema_for::<LongHeader>(),
            generator.subschema_for::<Vec<TextMatch>>(),
        );
        json_schema!({ "anyOf": [text, long, lines, { "type": "null" }] })
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let regex = Regex::new(&text);
        regex.map(Self).map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            D::Error::custom(format!("this is no regular expression: {last}"))
        })
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "regex" })
    }
}
