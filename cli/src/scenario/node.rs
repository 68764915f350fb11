//! A scenario file as a tree that knows where each part stands, and reading types out of it: an error names its line.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer};

/// A place in a file, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// A part of a file.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub data: Data,
}

/// What it is.
#[derive(Clone, Debug)]
pub enum Data {
    Null,
    /// With the text that stands in the file.
    Bool(bool, String),
    Integer(i64, String),
    Float(f64, String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, each key once.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug)]
pub struct Key {
    pub place: Place,
    pub name: String,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// `None` until the part that it is about is known.
    pub place: Option<Place>,
    pub text: String,
    /// A key that is not one of those that are allowed.
    unknown: Option<String>,
}

impl Wrong {
    pub fn new(place: Place, text: impl Into<String>) -> Self {
        Self { place: Some(place), text: text.into(), unknown: None }
    }

    fn at(mut self, node: &Node) -> Self {
        if self.place.is_some() {
            return self;
        }
        let unknown = self.unknown.take();
        let key = match (&node.data, &unknown) {
            (Data::Map(entries), Some(name)) => entries.iter().find(|(key, _)| key.name == *name),
            _ => None,
        };
        self.place = Some(key.map_or(node.place, |(key, _)| key.place));
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place.unwrap_or_default();
        write!(f, "{line}:{column}: {}", self.text)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { place: None, text: text.to_string(), unknown: None }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let text = match nearest(field, expected) {
            Some(near) => format!("there is no key {field:?} here; did you mean {near:?}?"),
            None if expected.is_empty() => format!("there is no key {field:?} here"),
            None => {
                format!("there is no key {field:?} here; the keys are {}", expected.join(", "))
            }
        };
        Self { place: None, text, unknown: Some(field.into()) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let near = nearest(variant, expected);
        let hint = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        Self::custom(format!("{variant:?} is not one of {}{hint}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("the key {field:?} is missing here"))
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = wanted(expected);
        Self::custom(format!("{expected} is wanted here, and this is {}", kind(unexpected)))
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = wanted(expected);
        Self::custom(format!("{expected} is wanted here, and this is {}", kind(unexpected)))
    }
}

/// What is wanted, in words of the format and not of Rust.
fn wanted(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" | "u64" | "usize" => "a whole number that is not negative".into(),
        "i32" | "i64" => "a whole number".into(),
        "a sequence" => "a list".into(),
        "a boolean" => "true or false".into(),
        "a string" => "a text".into(),
        text if text.starts_with("struct ") => "a map".into(),
        _ => text,
    }
}

fn kind(unexpected: de::Unexpected<'_>) -> String {
    match unexpected {
        de::Unexpected::Str(text) => format!("the text {text:?}"),
        de::Unexpected::Unit => "nothing".into(),
        de::Unexpected::Seq => "a list".into(),
        de::Unexpected::Map => "a map".into(),
        other => other.to_string(),
    }
}

/// The name that is most like a wrong one, when one is.
pub fn nearest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    let lower = wrong.to_lowercase().replace('-', "_");
    let similar = |name: &&str| strsim::jaro_winkler(&lower, name);
    let best = names.iter().copied().max_by(|a, b| similar(a).total_cmp(&similar(b)))?;
    (similar(&best) > 0.75).then_some(best)
}

/// Reads a type out of a tree.
pub fn read<T: DeserializeOwned>(node: &Node) -> Result<T, Wrong> {
    T::deserialize(node)
}

/// Names by which types ask for more than serde knows.
const TEXT: &str = "\0text";
const LOCATED: &str = "\0located";

/// Asks for a scalar as the text that stands in the file, for `null`, a list or a map as they are.
pub fn deserialize_text<'de, D: Deserializer<'de>, V: Visitor<'de>>(
    deserializer: D,
    visitor: V,
) -> Result<V::Value, D::Error> {
    deserializer.deserialize_newtype_struct(TEXT, visitor)
}

/// A value with its line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Located<T> {
    pub line: usize,
    pub value: T,
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Both<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Both<T> {
            type Value = Located<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Located<T>, A::Error> {
                let missing = || de::Error::custom("a value is missing");
                let line = seq.next_element::<u64>()?.ok_or_else(missing)?;
                let value = seq.next_element()?.ok_or_else(missing)?;
                Ok(Located { line: usize::try_from(line).unwrap_or(usize::MAX), value })
            }
        }
        deserializer.deserialize_tuple_struct(LOCATED, 2, Both(std::marker::PhantomData))
    }
}

macro_rules! scalars {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            self.deserialize_any(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for &Node {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.data {
            Data::Null => visitor.visit_unit(),
            Data::Bool(value, _) => visitor.visit_bool(*value),
            Data::Integer(value, _) => visitor.visit_i64(*value),
            Data::Float(value, _) => visitor.visit_f64(*value),
            Data::Text(text) => visitor.visit_str(text),
            Data::List(nodes) => visitor.visit_seq(List { nodes: nodes.iter(), line: None }),
            Data::Map(entries) => visitor.visit_map(Map { entries: entries.iter(), value: None }),
        }
        .map_err(|wrong: Wrong| wrong.at(self))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.data {
            Data::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|wrong: Wrong| wrong.at(self))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.text() {
            Some(text) => visitor.visit_str(text).map_err(|wrong: Wrong| wrong.at(self)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match name {
            TEXT => self.deserialize_str(visitor),
            _ => visitor.visit_newtype_struct(self).map_err(|wrong: Wrong| wrong.at(self)),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        if name != LOCATED {
            return self.deserialize_any(visitor);
        }
        let itself = std::slice::from_ref(self);
        let line = Some(self.place.line as u64);
        visitor
            .visit_seq(List { nodes: itself.iter(), line })
            .map_err(|wrong: Wrong| wrong.at(self))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.data {
            Data::Text(text) => {
                visitor.visit_enum(text.as_str().into_deserializer()).map_err(|w: Wrong| w.at(self))
            }
            _ => Err(Wrong::new(self.place, "a word is wanted here")),
        }
    }

    scalars! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_seq deserialize_map deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.deserialize_any(visitor)
    }
}

impl Node {
    /// The text of a scalar as it stands in the file.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Bool(_, text)
            | Data::Integer(_, text)
            | Data::Float(_, text)
            | Data::Text(text) => Some(text),
            Data::Null | Data::List(_) | Data::Map(_) => None,
        }
    }
}

struct List<'a> {
    nodes: std::slice::Iter<'a, Node>,
    line: Option<u64>,
}

impl<'de> de::SeqAccess<'de> for List<'_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        if let Some(line) = self.line.take() {
            return seed.deserialize(line.into_deserializer()).map(Some);
        }
        self.nodes.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Map<'a> {
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<&'a Node>,
}

impl<'de> de::MapAccess<'de> for Map<'_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(key.name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        match self.value.take() {
            Some(node) => seed.deserialize(node),
            None => Err(de::Error::custom("a value without a key")),
        }
    }
}
