-- A gateway as others have written theirs: on the six documented calls alone. Routes name filters and configurations;
-- a plugin context is made when a route's configuration is first used, and dropped when it changes.

local wasm = require("resty.proxy-wasm")

local ngx = ngx

local plugins = {}
local routes = {}
-- By route: the version of the configuration that the contexts are of, and the contexts.
local cache = {}
-- How many contexts were made, and which of them live.
local made = 0
local living = setmetatable({}, { __mode = "k" })

local _M = {}

-- In init_by_lua.
function _M.load(name, path)
    plugins[name] = assert(wasm.load(name, path))
end

-- Gives a route filters: a list of `{ name = , conf = }`.
function _M.set_route(name, filters)
    local before = routes[name]
    routes[name] = { version = before and before.version + 1 or 1, filters = filters }
end

local function contexts(name)
    local route = routes[name]
    local cached = cache[name]
    if cached and cached.version == route.version then
        return cached.list
    end
    local list = {}
    for i, filter in ipairs(route.filters) do
        local ctx, err = wasm.on_configure(plugins[filter.name], filter.conf)
        if not ctx then
            return nil, err
        end
        made = made + 1
        living[ctx] = true
        list[i] = ctx
    end
    cache[name] = { version = route.version, list = list }
    return list
end

local function refuse(err)
    ngx.log(ngx.ERR, "failed to run wasm plugin: ", err)
    return ngx.exit(503)
end

-- In access_by_lua or rewrite_by_lua.
function _M.access(route)
    local list, err = contexts(route)
    if not list then
        return refuse(err)
    end
    -- The request keeps what it began with.
    ngx.ctx.wasm = { list = list, bodies = {} }
    for _, ctx in ipairs(list) do
        local ok
        ok, err = wasm.on_http_request_headers(ctx)
        if not ok then
            return refuse(err)
        end
        if ngx.var.wasm_process_req_body ~= "" then
            -- For this filter only.
            ngx.var.wasm_process_req_body = ""
            ngx.req.read_body()
            ok, err = wasm.on_http_request_body(ctx, ngx.req.get_body_data(), true)
            if not ok then
                return refuse(err)
            end
        end
    end
end

function _M.header_filter()
    local state = ngx.ctx.wasm
    for i, ctx in ipairs(state and state.list or {}) do
        local ok, err = wasm.on_http_response_headers(ctx)
        if not ok then
            ngx.log(ngx.ERR, "failed to run wasm plugin: ", err)
            ngx.status = 503
        end
        if ngx.var.wasm_process_resp_body ~= "" then
            ngx.var.wasm_process_resp_body = ""
            state.bodies[i] = true
        end
    end
end

function _M.body_filter()
    local state = ngx.ctx.wasm
    for i, ctx in ipairs(state and state.list or {}) do
        if state.bodies[i] then
            local ok, err = wasm.on_http_response_body(ctx)
            if not ok then
                ngx.log(ngx.ERR, "failed to run wasm plugin: ", err)
            end
        end
    end
end

-- How many contexts were made, and how many live after the collector has run.
function _M.count()
    collectgarbage()
    collectgarbage()
    local live = 0
    for _ in pairs(living) do
        live = live + 1
    end
    return made, live
end

return _M
