//! Content types that filters write, and what nginx makes of them.

use super::header_lines::on_response;
use super::ops::contexts;
use super::support::{Curl, Nginx};

#[test]
fn content_types_are_sent_as_written() {
    for (old, new) in [
        ("text/html; charset=utf-8", "image/png"),
        ("text/html; charset=utf-8", "text/html"),
        ("text/html; charset=utf-8", "text/html;charset=koi8-r"),
        ("text/html;charset=\"utf-8\"", "text/plain; format=flowed"),
        ("text/html", "application/json"),
        ("text/html; charset=utf-8", ""),
        ("", "application/json"),
    ] {
        let line = if old.is_empty() { String::new() } else { format!("Content-Type: {old}\r\n") };
        let replace = format!("replace_header_map_value 2 content-type '{new}'");
        let back = if new.is_empty() { "0 ''".to_string() } else { format!("0 {new}") };
        let mut ops =
            vec![(replace.as_str(), "0"), ("get_header_map_value 2 content-type", back.as_str())];
        let old_back = format!("0 {old}");
        if !old.is_empty() {
            ops.insert(0, ("get_header_map_value 2 content-type", &old_back));
        }
        let run = on_response(&line, "", &ops);
        assert_eq!(run.response.header_all("content-type"), [new], "{old} {new}");
        let remove = [
            ("remove_header_map_value 2 content-type", "0"),
            ("get_header_map_value 2 content-type", "1"),
        ];
        let run = on_response(&line, "", &remove);
        assert_eq!(run.response.header_all("content-type"), [""; 0], "{old}");
    }
}

/// The directive `charset` names the charset of types that have none, also where a filter wrote them.
#[test]
fn the_charset_directive_comes_on_top() {
    let write = |value: &str| {
        format!("response_headers: replace_header_map_value 2 content-type '{value}'")
    };
    let answer = |callback: &str, headers: &str| {
        format!("{callback}: send_local_response 403 '' no {headers} -1")
    };
    let cases = [
        ("response_headers: ids".into(), "text/plain;charset=iso-8859-1"),
        (write("text/html"), "text/html; charset=utf-8"),
        (write("text/html; charset=koi8-r"), "text/html; charset=koi8-r"),
        (write("image/png"), "image/png"),
        (answer("request_headers", "''"), "text/plain; charset=utf-8"),
        (answer("request_headers", "content-type=text/html"), "text/html; charset=utf-8"),
        (answer("request_headers", "content-type=image/png"), "image/png"),
        (answer("response_headers", "content-type=text/html"), "text/html; charset=utf-8"),
        (
            answer("response_headers", "'content-type=text/html;charset=koi8-r'"),
            "text/html;charset=koi8-r",
        ),
        (answer("response_headers", "content-type=image/png"), "image/png"),
    ];
    let names: Vec<String> = (0..cases.len()).map(|index| format!("c{index}")).collect();
    let scripts: Vec<(&str, &str, &str)> = names
        .iter()
        .zip(&cases)
        .map(|(name, (script, _))| ("probe", name.as_str(), script.as_str()))
        .collect();
    let nginx = Nginx::new()
        .guest("probe")
        .http2()
        .http(&contexts("", &scripts))
        .http(
            "server {
                listen unix:typed.sock;
                location / { default_type 'text/plain;charset=iso-8859-1'; return 200 hello; }
            }
            charset utf-8;
            charset_types text/plain;",
        )
        .server(
            "location / {
                access_by_lua_block { call('on_http_request_headers', _G['c' .. ngx.var.arg_c]) }
                header_filter_by_lua_block { call('on_http_response_headers', _G['c' .. ngx.var.arg_c]) }
                body_filter_by_lua_block { call('on_http_response_body', _G['c' .. ngx.var.arg_c]) }
                proxy_pass http://unix:typed.sock;
            }",
        )
        .start();
    for (index, (script, wanted)) in cases.iter().enumerate() {
        let path = format!("/?c={index}");
        assert_eq!(nginx.get(&path).header_all("content-type"), [*wanted], "{script}");
        let answer = Curl::http2(&nginx).get(&path);
        assert_eq!(answer.header("content-type"), Some(*wanted), "{script}");
    }
}
