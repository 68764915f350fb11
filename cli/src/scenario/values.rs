//! Values that can be written in a short form and a long one.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::node::deserialize_text;

/// A text; numbers and `true` are what stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

/// A text, or a map.
#[derive(Clone, Debug)]
pub enum Short<T> {
    Text(String),
    Long(T),
}

/// One, or a list.
#[derive(Clone, Debug)]
pub struct OneOrMany<T>(pub Vec<T>);

/// Bytes: a text, or a map with one of the keys `file`, `base64`, `json`.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Text(String),
    File(String),
    Bytes(Vec<u8>),
}

/// Milliseconds: a number of these, or a text as `250ms`, `5s`, `2m`, `1h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Duration(pub u64);

impl Content {
    /// Its bytes. Files are looked for from that folder on.
    pub fn bytes(&self, folder: &Path) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(name) => {
                let path = folder.join(name);
                crate::source::bytes(&path).map_err(|error| {
                    format!("{}: {}", path.display(), crate::source::plain(&error))
                })
            }
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.into()))
            }
        }
        deserialize_text(deserializer, Word)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Short<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a map")
            }
            fn visit_str<E>(self, text: &str) -> Result<Short<T>, E> {
                Ok(Short::Text(text.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Short<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Short::Long)
            }
        }
        deserialize_text(deserializer, Either(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one or a list of them")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(Scalar(text, PhantomData)).map(|one| OneOrMany(vec![one]))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(OneOrMany)
            }
        }
        deserialize_text(deserializer, Either(PhantomData))
    }
}

/// A scalar that was read as its text already.
struct Scalar<'a, E>(&'a str, PhantomData<E>);

impl<'de, E: Error> Deserializer<'de> for Scalar<'_, E> {
    type Error = E;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_str(self.0)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongContent {
    /// The bytes of a file; a path that begins where the scenario file is.
    #[serde(default)]
    file: Option<String>,
    /// Bytes in base64.
    #[serde(default)]
    base64: Option<String>,
    /// A value, which is written as JSON.
    #[serde(default)]
    json: Option<serde_json::Value>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let long = match Short::<LongContent>::deserialize(deserializer)? {
            Short::Text(text) => return Ok(Self::Text(text)),
            Short::Long(long) => long,
        };
        match (long.file, long.base64, long.json) {
            (Some(file), None, None) => Ok(Self::File(file)),
            (None, Some(text), None) => match BASE64.decode(text) {
                Ok(bytes) => Ok(Self::Bytes(bytes)),
                Err(error) => Err(D::Error::custom(format!("this is not base64: {error}"))),
            },
            (None, None, Some(value)) => Ok(Self::Text(value.to_string())),
            _ => Err(D::Error::custom("one of the keys file, base64 and json is wanted here")),
        }
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "" | "ms" => Some(1),
            "s" => Some(1000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        let milliseconds =
            number.parse::<u64>().ok().zip(factor).and_then(|(n, f)| n.checked_mul(f));
        match milliseconds.filter(|milliseconds| *milliseconds <= MOST_MS) {
            Some(milliseconds) => Ok(Self(milliseconds)),
            None => Err(D::Error::custom(format!(
                "{text:?} is no time as 250ms, 5s, 2m or 1h, of a day at most"
            ))),
        }
    }
}

/// A day.
const MOST_MS: u64 = 24 * 3_600_000;

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

impl<T: JsonSchema> JsonSchema for Short<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("TextOr{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (text, long) = (generator.subschema_for::<Text>(), generator.subschema_for::<T>());
        json_schema!({ "anyOf": [text, long] })
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

impl JsonSchema for Content {
    fn schema_name() -> Cow<'static, str> {
        "Content".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (text, long) =
            (generator.subschema_for::<Text>(), generator.subschema_for::<LongContent>());
        json_schema!({ "anyOf": [text, long] })
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Milliseconds, or a text as 250ms, 5s, 2m, 1h",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+(ms|s|m|h)?$" },
            ],
        })
    }
}
