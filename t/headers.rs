//! Header maps: reading them.

use super::ops::{answers, check, check_on, script};
use super::support::{Nginx, Probe, Running};

const PAIRS: &str = "get_header_map_pairs 0";

#[test]
fn request_headers_in_order_with_pseudo_headers_first() {
    let ops = [
        ("args", "num_headers=9 eos=1"),
        (
            PAIRS,
            r":method=GET|:scheme=http|:authority=Example.com:81|:path=/a%20b/..?x=%41&y|x-two=1|accept=*/*|x-empty=|x-two=A b|connection=close",
        ),
        ("get_header_map_size 0", "140"),
        ("get_header_map_value 0 :method", "0 GET"),
        ("get_header_map_value 0 :scheme", "0 http"),
        ("get_header_map_value 0 :authority", "0 Example.com:81"),
        ("get_header_map_value 0 :path", "0 /a%20b/..?x=%41&y"),
        ("get_header_map_value 0 host", "0 Example.com:81"),
        ("get_header_map_value 0 HOST", "0 Example.com:81"),
        ("get_header_map_value 0 x-two", "0 1"),
        ("get_header_map_value 0 X-TWO", "0 1"),
        ("get_header_map_value 0 x-empty", "0 ''"),
        ("get_header_map_value 0 x-missing", "1"),
        ("get_header_map_value 0 ''", "1"),
        ("get_header_map_value 0 :status", "1"),
        (r"get_header_map_value 0 x-two\0", "1"),
    ];
    let nginx = Probe::new(&script("request_headers", &ops)).start();
    nginx
        .request("GET", "/a%20b/..?x=%41&y")
        .header("X-Two", "1")
        .header("HOST", "Example.com:81")
        .header("Accept", "*/*")
        .header("X-Empty", "")
        .header("X-Two", "A b")
        .send();
    assert_eq!(of(&nginx, "request_headers"), answers_of_pairs(&ops));
}

/// A map is logged as a value: without a status it would not be there.
fn answers_of_pairs(ops: &[(&str, &str)]) -> Vec<String> {
    ops.iter()
        .map(|(op, answer)| match op.split(' ').next() {
            Some("get_header_map_pairs" | "get_header_map_size") => format!("{op} -> 0 {answer}"),
            _ => format!("{op} -> {answer}"),
        })
        .collect()
}

fn of(nginx: &Running, callback: &str) -> Vec<String> {
    let lines = nginx.guest_log("probe");
    let of_callback = lines
        .iter()
        .filter_map(|line| line.strip_prefix(callback)?.strip_prefix(' '));
    of_callback.map(Into::into).collect()
}
