-- The module outside of http {}: code that a stream {} block shares with it loads the module, too, and nginx starts.

-- All functions of the module.
local NAMES = {
    "load", "on_configure", "on_http_request_headers", "on_http_request_body", "on_http_response_headers",
    "on_http_response_body", "init_worker", "new_chain", "shared", "metrics", "prometheus",
    "plugins", "status_page", "build",
    "register_foreign_function", "setup",
}

-- Gives `module` functions that answer nil and why.
return function(module, subsystem)
    local function refuse()
        return nil, "bad request: Proxy-Wasm filters run in http {}, and this is " .. subsystem .. " {}"
    end
    for _, name in ipairs(NAMES) do
        module[name] = refuse
    end
    return module
end
