//! What a scenario file must be that its types do not say. An error has its line.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::model::{Answer, Expect, File, Filter, Request, Response, Step, Test};
use super::node::Located;
use super::values::{Duration, OneOrMany, Short, Text};
use crate::run::filters::MEMORY;
use crate::text;

/// Line and cause.
type Checked = Result<(), (usize, String)>;

type Headers = BTreeMap<String, OneOrMany<Text>>;

/// Bytes of a body that a filter may hold.
const MOST_BODY: usize = 128 * 1024 * 1024;

/// How often a step may send its request.
const TIMES: RangeInclusive<u32> = 1..=1_000_000;

const NO_FILTER: &str = "one of the keys filter and filters is wanted";
const TWO_FILTERS: &str = "one of the keys filter and filters is enough";

/// Checks a file whose first line is that.
pub fn file(file: &File, line: usize) -> Checked {
    let at = |cause| (line, cause);
    let has_filter = file.filter.is_some() || !file.filters.is_empty();
    // A file without tests has nothing to say which filter they are of.
    if !has_filter && file.tests.is_empty() {
        return Err(at(NO_FILTER.into()));
    }
    filters(file.filter.as_ref(), &file.filters).map_err(at)?;
    upstreams(&file.upstreams).map_err(at)?;
    file.tests.iter().try_for_each(|test| of_test(test, has_filter))
}

fn of_test(test: &Located<Test>, has_filter: bool) -> Checked {
    let Located { line, value: test } = test;
    let at = |cause| (*line, cause);
    if test.filter.is_none() && test.filters.is_empty() && !has_filter {
        return Err(at(NO_FILTER.into()));
    }
    filters(test.filter.as_ref(), &test.filters).map_err(at)?;
    upstreams(&test.upstreams).map_err(at)?;
    let plays = test.request.is_some() || test.response.is_some() || !test.steps.is_empty();
    if test.refused.is_some() && plays {
        return Err(at("a filter that is refused gets no request".into()));
    }
    test.request.as_ref().map_or(Ok(()), request).map_err(at)?;
    test.response.as_ref().map_or(Ok(()), response).map_err(at)?;
    if let Some(Located { line, value }) = &test.expect {
        expect(value).map_err(|cause| (*line, cause))?;
    }
    test.steps.iter().try_for_each(|s| step(&s.value).map_err(|cause| (s.line, cause)))
}

fn step(step: &Step) -> Result<(), String> {
    let happens = [
        step.request.is_some(),
        step.advance.is_some(),
        step.message.is_some(),
        step.share.is_some(),
    ];
    if happens.into_iter().filter(|it| *it).count() != 1 {
        return Err("a step has one of the keys request, advance, message, share".into());
    }
    if step.request.is_none() && (step.response.is_some() || step.times.is_some()) {
        return Err("response and times go with a request".into());
    }
    if step.times.is_some_and(|times| !TIMES.contains(&times)) {
        return Err(format!("times must be from {} to {}", TIMES.start(), TIMES.end()));
    }
    step.expect.as_ref().map_or(Ok(()), |expect| self::expect(&expect.value))?;
    step.request.as_ref().map_or(Ok(()), request)?;
    step.response.as_ref().map_or(Ok(()), response)
}

fn request(request: &Request) -> Result<(), String> {
    request.method.as_deref().map_or(Ok(()), text::is_method).map_err(|c| format!("method {c}"))?;
    request.path.as_deref().map_or(Ok(()), text::is_path).map_err(|c| format!("path {c}"))?;
    headers(&request.headers)
}

fn response(response: &Response) -> Result<(), String> {
    if response.body.is_some() && !response.chunks.is_empty() {
        return Err("a response has a body or chunks, not both".into());
    }
    if response.status.is_some_and(|status| !(200..1000).contains(&status)) {
        return Err("the status of a response is from 200 to 999".into());
    }
    headers(&response.headers)
}

fn expect(expect: &Expect) -> Result<(), String> {
    if expect.status.is_some_and(|status| !(100..1000).contains(&status)) {
        return Err("expect: a status is from 100 to 999".into());
    }
    Ok(())
}

fn headers(headers: &Headers) -> Result<(), String> {
    headers.iter().try_for_each(|(name, OneOrMany(values))| {
        values.iter().try_for_each(|Text(value)| {
            text::is_header(name, value).map_err(|cause| format!("headers: {name:?}: {cause}"))
        })
    })
}

fn upstreams(upstreams: &BTreeMap<String, OneOrMany<Answer>>) -> Result<(), String> {
    for (name, OneOrMany(answers)) in upstreams {
        let wrong = |cause: &str| format!("upstreams: {name:?}: {cause}");
        if answers.is_empty() {
            return Err(wrong("it has no answer"));
        }
        for answer in answers {
            if answer.status.is_some_and(|status| !(100..1000).contains(&status)) {
                return Err(wrong("the status of an answer is from 100 to 999"));
            }
            let lines = headers(&answer.headers).and_then(|()| headers(&answer.trailers));
            lines.map_err(|cause| wrong(&cause))?;
        }
    }
    Ok(())
}

fn filters(one: Option<&Short<Filter>>, many: &[Short<Filter>]) -> Result<(), String> {
    if one.is_some() && !many.is_empty() {
        return Err(TWO_FILTERS.into());
    }
    one.into_iter().chain(many).try_for_each(|filter| match filter {
        Short::Long(filter) => options(filter),
        Short::Text(_) => Ok(()),
    })
}

/// What `load` asks of its options, and says of others.
fn options(filter: &Filter) -> Result<(), String> {
    let number = |name: &str, is_good: bool, wanted: &str| match is_good {
        true => Ok(()),
        false => Err(format!("option {name:?} must be a whole number of {wanted}")),
    };
    let memory = filter.memory_limit.is_none_or(|bytes| MEMORY.contains(&bytes));
    number("memory_limit", memory, "bytes from 65536 to 4294967296")?;
    let body = filter.body_limit.is_none_or(|bytes| (1..=MOST_BODY).contains(&bytes));
    number("body_limit", body, &format!("bytes from 1 to {MOST_BODY}"))?;
    for (name, time) in [
        ("time_limit", filter.time_limit),
        ("start_time_limit", filter.start_time_limit),
        ("pause_timeout", filter.pause_timeout),
    ] {
        number(name, time != Some(Duration(0)), "milliseconds from 1 on")?;
    }
    filter.env.iter().try_for_each(|(name, Text(value))| {
        text::is_variable(name, value).map_err(|cause| format!("env: {cause}"))
    })
}
