//! What tests of host functions share: ops of the probe side by side with what each must answer, and servers.

use super::support::{Nginx, Outcome, Probe, Running, poll};

/// Pairs of an op and what stands behind the arrow of its log line.
pub(crate) type Ops<'a> = &'a [(&'a str, &'a str)];

/// The script that runs them in a callback.
pub(crate) fn script(callback: &str, ops: Ops<'_>) -> String {
    ops.iter().map(|(op, _)| format!("{callback}: {op}\n")).collect()
}

/// What the probe logged in a callback, without the callback's name.
pub(crate) fn of(nginx: &Running, callback: &str) -> Vec<String> {
    let lines = nginx.guest_log("probe");
    let of_callback =
        lines.iter().filter_map(|line| line.strip_prefix(callback)?.strip_prefix(' '));
    of_callback.map(Into::into).collect()
}

/// The same once it is that many lines: an end may come a moment after nginx closed the connection.
pub(crate) fn wait_for(nginx: &Running, callback: &str, count: usize) -> Vec<String> {
    poll(|| Some(of(nginx, callback)).filter(|lines| lines.len() >= count))
        .unwrap_or_else(|| of(nginx, callback))
}

/// The lines that a plugin logged, once it is that many.
pub(crate) fn wait_for_lines(nginx: &Running, plugin: &str, count: usize) -> Vec<String> {
    poll(|| Some(nginx.guest_log(plugin)).filter(|lines| lines.len() >= count))
        .unwrap_or_else(|| nginx.guest_log(plugin))
}

/// The callback ran once, and each op answered as it must.
pub(crate) fn expect(nginx: &Running, callback: &str, ops: Ops<'_>) {
    let lines = wait_for(nginx, callback, ops.len());
    for (line, (op, answer)) in lines.iter().zip(ops) {
        assert_eq!(*line, format!("{op} -> {answer}"), "in {callback}");
    }
    assert_eq!(lines.len(), ops.len(), "in {callback}: {lines:?}");
}

/// Runs ops in a callback of `GET /`.
pub(crate) fn check(callback: &str, ops: Ops<'_>) -> Outcome {
    check_with(callback, ops, |probe| probe)
}

/// The same with a probe that the closure completes.
pub(crate) fn check_with(
    callback: &str,
    ops: Ops<'_>,
    complete: impl FnOnce(Probe) -> Probe,
) -> Outcome {
    let run = complete(Probe::new(&script(callback, ops))).run();
    expect(&run.nginx, callback, ops);
    run
}

/// `init_by_lua_block` text that makes plugin contexts of the probe, each `(plugin, context, script)` a global of the
/// context's name, and the global `call`, which logs failures as [`Outcome::failures`] shows them.
pub(crate) fn contexts(options: &str, contexts: &[(&str, &str, &str)]) -> String {
    let mut lua = format!(
        r#"
        init_by_lua_block {{
            local wasm = require("resty.proxy-wasm")
            function call(name, ...)
                local result, err = wasm[name](...)
                if not result then
                    ngx.log(ngx.NOTICE, "lua call failed: ", name, ": ", err)
                end
                return result
            end
            plugins = setmetatable({{}}, {{ __index = function(self, name)
                self[name] = assert(wasm.load(name, "probe.wasm", {{ {options} }}))
                return self[name]
            end }})
        "#
    );
    for (plugin, context, script) in contexts {
        lua += &format!("{context} = call('on_configure', plugins.{plugin}, [==[{script}\n]==])\n");
    }
    lua + "}\n"
}

/// What the locations of [`phases`] are.
pub(crate) const PHASES: [&str; 3] = ["/rewrite", "/access", "/content"];

/// A server whose locations tell a filter of the request's headers in the phase of their name, and of the response. An
/// answer has the header `x-went-on` with the phase in which the request continued.
pub(crate) fn phases(options: &str, script: &str) -> Running {
    let location = |phase: &str, content: &str| {
        format!(
            "location /{phase} {{
                {phase}_by_lua_block {{
                    if call('on_http_request_headers', a) then
                        ngx.header['x-went-on'] = '{phase}'
                    end
                    {content}
                }}
                proxy_pass http://unix:echo.sock;
            }}\n"
        )
    };
    Nginx::new()
        .guest("probe")
        .echo()
        .http(&contexts(options, &[("probe", "a", script)]))
        .server("header_filter_by_lua_block { call('on_http_response_headers', a) }\n")
        .server("body_filter_by_lua_block { call('on_http_response_body', a) }\n")
        .server(&location("rewrite", ""))
        .server(&location("access", ""))
        .server(
            &location("content", "ngx.say('content')")
                .replace("proxy_pass http://unix:echo.sock;", ""),
        )
        .start()
}

/// The request that the echo server got: its request line, and its headers in order, names as sent.
pub(crate) fn echoed(body: &str) -> (&str, Vec<(&str, &str)>) {
    let head = body.split("\r\n\r\n").next().unwrap_or_default();
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let headers = headers.lines().filter_map(|header| header.split_once(": "));
    (line, headers.collect())
}
