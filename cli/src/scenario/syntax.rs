//! YAML and TOML as trees.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::node::{Data, Key, Node, Place, Wrong};

/// Deeper than this no scenario is, and a parser has a stack.
const DEPTH: usize = 64;

/// Reads a file by its ending: `.toml`, else YAML.
pub fn parse(name: &str, text: &str) -> Result<Node, Wrong> {
    if name.ends_with(".toml") { parse_toml(text) } else { parse_yaml(text) }
}

/// Reads the one document of a YAML file.
pub fn parse_yaml(text: &str) -> Result<Node, Wrong> {
    check_line_ends(text)?;
    check_depth(text)?;
    let mut stack: Vec<Open> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            let place = Place { line: marker.line(), column: marker.col() + 1 };
            Wrong::new(place, format!("this is not YAML: {}", error.info()))
        })?;
        let at = place(span);
        let node = match event {
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    return Err(Wrong::new(at, "tags of YAML are not used in scenarios"));
                }
                let data = if style == ScalarStyle::Plain {
                    plain(&text)
                } else {
                    Data::Text(text.into())
                };
                Node { place: at, data }
            }
            Event::Alias(_) => {
                return Err(Wrong::new(at, "aliases of YAML are not used in scenarios"));
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if stack.len() >= DEPTH {
                    return Err(Wrong::new(at, "this is nested too deeply"));
                }
                stack.push(match event {
                    Event::SequenceStart(..) => Open::List(at, Vec::new()),
                    _ => Open::Map(at, Vec::new(), None),
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Open::List(place, nodes)) => Node { place, data: Data::List(nodes) },
                Some(Open::Map(place, entries, _)) => Node { place, data: Data::Map(entries) },
                None => return Err(Wrong::new(at, "this is not YAML")),
            },
            Event::DocumentStart(_) if root.is_some() => {
                return Err(Wrong::new(at, "a scenario file is one document"));
            }
            _ => continue,
        };
        match stack.last_mut() {
            None => root = Some(node),
            Some(open) => open.add(node)?,
        }
    }
    Ok(root.unwrap_or(Node { place: Place { line: 1, column: 1 }, data: Data::Null }))
}

/// A list or a map whose end has not come.
enum Open {
    List(Place, Vec<Node>),
    Map(Place, Vec<(Key, Node)>, Option<Key>),
}

impl Open {
    fn add(&mut self, node: Node) -> Result<(), Wrong> {
        match self {
            Self::List(_, nodes) => nodes.push(node),
            Self::Map(_, entries, key) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let name = node.text().map(str::to_owned);
                    let name = name.ok_or_else(|| Wrong::new(node.place, "a key is a word"))?;
                    if entries.iter().any(|(other, _)| other.name == name) {
                        return Err(Wrong::new(
                            node.place,
                            format!("the key {name:?} is there twice"),
                        ));
                    }
                    *key = Some(Key { place: node.place, name });
                }
            },
        }
        Ok(())
    }
}

fn place(span: Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

/// For YAML a carriage return ends a line, for most editors it does not: places behind one would be on lines that are not there.
fn check_line_ends(text: &str) -> Result<(), Wrong> {
    for (line, text) in text.split('\n').enumerate() {
        let text = text.strip_suffix('\r').unwrap_or(text);
        if let Some(column) = text.chars().position(|c| c == '\r') {
            let place = Place { line: line + 1, column: column + 1 };
            return Err(Wrong::new(
                place,
                "a carriage return without a line feed; end lines with \\n or \\r\\n",
            ));
        }
    }
    Ok(())
}

/// A parser that recurses is not given what nests deeply by brackets.
fn check_depth(text: &str) -> Result<(), Wrong> {
    let mut depth = 0usize;
    for (line, text) in text.lines().enumerate() {
        for (column, c) in text.chars().enumerate() {
            match c {
                '[' | '{' => depth += 1,
                ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > MOST_BRACKETS {
                let place = Place { line: line + 1, column: column + 1 };
                return Err(Wrong::new(place, "this is nested too deeply"));
            }
        }
    }
    Ok(())
}

/// Bodies of scenarios may hold brackets, so this is more than [`DEPTH`].
const MOST_BRACKETS: usize = 1000;

/// The core schema of YAML 1.2.
fn plain(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true, text.into()),
        "false" | "False" | "FALSE" => return Data::Bool(false, text.into()),
        _ => {}
    }
    let number = text.strip_prefix('+').unwrap_or(text);
    if let Ok(integer) = number.parse() {
        return Data::Integer(integer, text.into());
    }
    let looks = number.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    match number.parse() {
        Ok(float) if looks => Data::Float(float, text.into()),
        _ => Data::Text(text.into()),
    }
}

/// Reads a TOML file.
pub fn parse_toml(text: &str) -> Result<Node, Wrong> {
    check_depth(text)?;
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|error| {
        let place = lines.place(error.span().map_or(0, |span| span.start));
        Wrong::new(place, format!("this is not TOML: {}", error.message()))
    })?;
    let place = lines.place(table.span().start);
    Ok(Node { place, data: map(table.get_ref(), &lines)? })
}

fn map(table: &DeTable<'_>, lines: &Lines) -> Result<Data, Wrong> {
    let mut entries = Vec::new();
    for (key, value) in table {
        let key = Key { place: lines.place(key.span().start), name: key.get_ref().to_string() };
        entries.push((key, node(value, lines)?));
    }
    entries.sort_by_key(|(key, _)| (key.place.line, key.place.column));
    Ok(Data::Map(entries))
}

fn node(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Result<Node, Wrong> {
    let place = lines.place(value.span().start);
    let data = match value.get_ref() {
        DeValue::String(text) => Data::Text(text.to_string()),
        DeValue::Boolean(value) => Data::Bool(*value, value.to_string()),
        DeValue::Integer(number) => {
            let text = number.as_str();
            match i64::from_str_radix(text, number.radix()) {
                Ok(integer) => Data::Integer(integer, text.into()),
                Err(_) => return Err(Wrong::new(place, "this number is too large")),
            }
        }
        DeValue::Float(number) => {
            let text = number.as_str();
            Data::Float(text.parse().unwrap_or(f64::NAN), text.into())
        }
        DeValue::Datetime(time) => Data::Text(time.to_string()),
        DeValue::Array(values) => {
            Data::List(values.iter().map(|value| node(value, lines)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => map(table, lines)?,
    };
    Ok(Node { place, data })
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect())
    }

    fn place(&self, at: usize) -> Place {
        let line = self.0.partition_point(|start| *start <= at);
        let start = self.0.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        Place { line: line.max(1), column: at - start + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(name: &str, text: &str) -> String {
        parse(name, text).expect_err("an error").to_string()
    }

    #[test]
    fn errors_of_syntax_have_a_place() {
        assert!(wrong("a.yaml", "a: 1\nb: [1, 2\n").contains("not YAML"));
        assert_eq!(wrong("a.yaml", "a: 1\nb: 2\na: 3\n"), "3:1: the key \"a\" is there twice");
        assert_eq!(
            wrong("a.yaml", "a: &x 1\nb: *x\n"),
            "2:4: aliases of YAML are not used in scenarios"
        );
        assert!(wrong("a.toml", "a = 1\nb = \n").starts_with("2:"));
        assert!(wrong("a.yaml", &"[".repeat(5000)).contains("too deeply"));
        assert!(wrong("a.yaml", &"- ".repeat(5000)).contains("too deeply"));
    }

    #[test]
    fn scalars_keep_their_text() {
        let node = parse_yaml("[1.10, 007, \"5\", yes, ~, -3, 1e3, 1_000]").expect("YAML");
        let Data::List(nodes) = node.data else { panic!("a list") };
        let texts: Vec<Option<&str>> = nodes.iter().map(Node::text).collect();
        let expected = ["1.10", "007", "5", "yes", "", "-3", "1e3", "1_000"];
        for (text, expected) in texts.iter().zip(expected) {
            assert_eq!(text.unwrap_or_default(), expected);
        }
        assert!(matches!(nodes[0].data, Data::Float(..)) && matches!(nodes[3].data, Data::Text(_)));
    }
}
