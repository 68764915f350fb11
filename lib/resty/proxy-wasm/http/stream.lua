-- Events of a request: tells the library, and does with the request what comes back.

local ffi = require("ffi")
local base = require("resty.core.base")
local clib = require("resty.proxy-wasm.clib")
local effects = require("resty.proxy-wasm.http.effects")
local handles = require("resty.proxy-wasm.handles")
local response = require("resty.proxy-wasm.http.response")
local jobs = require("resty.proxy-wasm.jobs")
local semaphore = require("resty.proxy-wasm.semaphore")
local snapshot = require("resty.proxy-wasm.http.snapshot")

local ffi_copy = ffi.copy
local ffi_new = ffi.new
local ffi_str = ffi.string
local ngx = ngx
local ngx_req = ngx.req
local get_phase = ngx.get_phase
local get_request = base.get_request
local error = error
local format = string.format

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error
local const = clib.const
local CONTINUE = const.RPW_CONTINUE
local PAUSE = const.RPW_PAUSE
local RESPOND = const.RPW_RESPOND
local CLOSE = const.RPW_CLOSE
local NEED_INTERPRETER = const.RPW_NEED_INTERPRETER
local NEED_RESPONSE_HEADERS = const.RPW_NEED_RESPONSE_HEADERS
local BAD_REQUEST = const.RPW_BAD_REQUEST
local TOO_LARGE = const.RPW_TOO_LARGE
local CUT = const.RPW_CUT
local BODY_HOLD = const.RPW_BODY_HOLD
local BODY_REPLACE = const.RPW_BODY_REPLACE

-- What `request_headers` returns of a request that waits for its body.
local HELD = "held"

-- One of each serves all calls: nothing yields between filling an event and reading its outcome.
local event = ffi_new("rpw_event_t")
local outcome = ffi_new("rpw_outcome_t")
local OUTCOME_SIZE = ffi.sizeof("rpw_outcome_t")
local timeout_ms = ffi_new("uint32_t[1]")

-- Phases whose coroutine can wait.
local CAN_WAIT = {
    rewrite = true,
    server_rewrite = true,
    access = true,
    content = true,
}

-- Phases that have a request and no ngx.arg. In the others that are not body_filter the request is a fake one.
local HAS_NO_ARG = {
    set = true,
    rewrite = true,
    server_rewrite = true,
    access = true,
    content = true,
    balancer = true,
    header_filter = true,
    log = true,
}

local HTTP_CLOSE = 444
local CONTENT_TOO_LARGE = 413

-- Whether a request waits for the calls that its callbacks dispatch, where neither `load` nor `setup` says. The six
-- documented calls do as the module that they come from, chains as Envoy.
local CALLS_HOLD, CHAINS_HOLD = 1, 0

local function failed(step, cause)
    return nil, "failed to run " .. step .. ": " .. cause
end

local handles_due = handles.due
local sweep = handles.sweep
local work_waits = jobs.waits
local look_for_work = jobs.look

-- For filters that may call functions of Lua, which may run filters: so with an event and an outcome of its own.
local function run_interpreted(ctx, r)
    local own_event, own_outcome = ffi_new("rpw_event_t", event), ffi_new("rpw_outcome_t")
    own_event.interpreted = 1
    local rc = lib.rpw_stream_run(ctx, r, own_event, own_outcome, error_slot)
    ffi_copy(outcome, own_outcome, OUTCOME_SIZE)
    return rc
end

jit.off(run_interpreted)

local function run_once(ctx, r)
    local rc = lib.rpw_stream_run(ctx, r, event, outcome, error_slot)
    if rc == NEED_INTERPRETER then
        rc = run_interpreted(ctx, r)
    end
    return rc
end

local function run(ctx, r)
    if handles_due[0] ~= 0 then
        sweep()
    end
    local rc = run_once(ctx, r)
    if work_waits[0] ~= 0 then
        look_for_work()
    end
    if rc ~= NEED_RESPONSE_HEADERS then
        return rc
    end
    local list, count, owner = snapshot.response_headers()
    event.headers, event.headers_length = list, count
    rc = run_once(ctx, r)
    if work_waits[0] ~= 0 then
        look_for_work()
    end
    event.headers, event.headers_length = nil, 0
    -- The strings that the list points to must have lived until here.
    return rc, owner
end

local function close()
    local phase = get_phase()
    if phase == "header_filter" then
        -- It returns here, and nginx ends the request when the phase has.
        ngx.exit(ngx.ERROR)
        return true
    end
    if CAN_WAIT[phase] then
        return ngx.exit(HTTP_CLOSE)
    end
    -- body_filter has no way to end a request but an error.
    error("a wasm filter closed the stream", 0)
end

-- `own_page`: a response without a body is nginx's own page, or what `error_page` says.
local function respond(local_response, own_page)
    -- One for a request that had gone on may be found in another phase.
    if local_response.direct and get_phase() == "header_filter" then
        response.replace_headers(local_response.status, local_response.headers, local_response.body)
        return true
    end
    return response.send(local_response.status, local_response.headers, local_response.body, own_page)
end

-- Semaphores that nothing waits for and nothing posts.
local spare = {}
local SPARE = 64

local function new_semaphore()
    local count = #spare
    if count == 0 then
        return semaphore.new()
    end
    local sema = spare[count]
    spare[count] = nil
    return sema
end

-- The library has let go of it.
local function keep(sema)
    if #spare < SPARE and sema:count() == 0 then
        spare[#spare + 1] = sema
    end
end

-- How many requests have waited.
local waited = 0

-- Waits until the guest lets the request continue, and returns what came of it.
local function wait(ctx, r, step)
    waited = waited + 1
    local phase = get_phase()
    if not CAN_WAIT[phase] then
        local why = outcome.awaits_call ~= 0 and "the filter's calls are under way" or "the filter paused the request"
        return failed(step, format("%s, and phase %s cannot wait", why, phase))
    end
    local sema, err = new_semaphore()
    if not sema then
        return failed(step, err)
    end
    local rc = lib.rpw_stream_wait(ctx, r, sema.sem, timeout_ms, error_slot)
    if rc == PAUSE then
        local ms = timeout_ms[0]
        sema:wait(ms / 1000)
        rc = lib.rpw_stream_resume(ctx, r, sema.sem, outcome, error_slot)
        keep(sema)
        if rc == PAUSE then
            if outcome.awaits_call ~= 0 then
                return failed(step, format("the filter's calls were not answered within %d ms", ms))
            end
            return failed(step, format("the filter paused the request, and nothing let it go on within %d ms", ms))
        end
    elseif rc == CONTINUE then
        rc = lib.rpw_stream_resume(ctx, r, sema.sem, outcome, error_slot)
    end
    if work_waits[0] ~= 0 then
        look_for_work()
    end
    if rc < 0 then
        return failed(step, last_error())
    end
    return rc
end

local function set_request_body(step, body)
    if not CAN_WAIT[get_phase()] then
        return failed(step, "the filter changed the request body, which phase " .. get_phase() .. " cannot pass on")
    end
    ngx_req.read_body()
    ngx_req.set_body_data(body)
    return true
end

-- What becomes of a request's body that came as a whole.
local whole_body = {}

-- Called for each outcome, with the action that comes with it. Returns true; else nil and why not.
function whole_body.take(_, _, step, of_event)
    if of_event.body_action ~= BODY_REPLACE then
        return true
    end
    return set_request_body(step, ffi_str(of_event.body, of_event.body_length))
end

-- Nothing more of the response goes out: the client sees that it is incomplete. body_filter has no other way to end a
-- request than an error.
local function cut_off()
    error("the response is cut off: " .. last_error(), 0)
end

-- Everything that is not "continue with nothing but header effects". `body` takes the outcomes of an event of the
-- request's body. Returns true when the request continues; nil, why the filter failed, and the status to answer with
-- when it is not 503; false when the request ends here, with the local response if there is one.
local function finish(ctx, r, rc, step, body)
    while true do
        if rc == BAD_REQUEST then
            return nil, "bad request"
        elseif rc == CUT then
            return cut_off()
        elseif rc < 0 then
            local _, err = failed(step, last_error())
            return nil, err, rc == TOO_LARGE and CONTENT_TOO_LARGE or nil
        end
        local local_response = effects.apply(outcome)
        if body then
            local ok, err = body:take(rc, step, outcome)
            if not ok then
                return nil, err
            end
        end
        if rc == CONTINUE then
            return true
        elseif rc == RESPOND then
            return false, local_response
        elseif rc == CLOSE then
            return false
        elseif rc == PAUSE then
            local err
            rc, err = wait(ctx, r, step)
            if not rc then
                return nil, err
            end
        else
            error("resty.proxy-wasm: the library answers " .. rc .. ", which these Lua files do not know")
        end
    end
end

-- Ends a request as `finish` says. Returns, if at all, what the caller is told.
local function stop(local_response, own_page)
    if local_response then
        return respond(local_response, own_page)
    end
    return close()
end

local function conclude(ok, what)
    if ok then
        return true
    elseif ok == false then
        return stop(what, true)
    end
    return nil, what
end

-- Tells a filter of headers. Returns what `finish` does, and with true whether the filter rewrites bodies; or HELD, if
-- one that `takes_body` paused and awaits no call, and whether it was told that a body comes. `calls_hold`: 1 when a
-- request waits for the filter's calls.
local function headers_event(callback, step)
    return function(ctx, calls_hold, takes_body)
        local r = get_request()
        if not r then
            return nil, "bad request"
        end
        event.callback, event.calls_hold = callback, calls_hold
        local rc = run(ctx, r)
        if rc == CONTINUE then
            if outcome.effects_length ~= 0 then
                effects.apply(outcome)
            end
            return true, outcome.rewrites_body ~= 0
        end
        if rc == PAUSE and takes_body and outcome.awaits_call == 0 then
            local expects_body = outcome.expects_body ~= 0
            effects.apply(outcome)
            return HELD, expects_body
        end
        return finish(ctx, r, rc, step)
    end
end

local tell_request_headers = headers_event(const.RPW_REQUEST_HEADERS, "proxy_on_http_request_headers")
local RESPONSE_HEADERS_STEP = "proxy_on_http_response_headers"
local tell_response_headers = headers_event(const.RPW_RESPONSE_HEADERS, RESPONSE_HEADERS_STEP)

local function set_body(body, end_of_stream)
    event.body, event.body_length = body, #body
    event.end_of_stream = end_of_stream and 1 or 0
end

-- Nothing of the event may point to a string that is not there any more.
local function clear_body()
    event.body, event.body_length, event.end_of_stream, event.piecewise = nil, 0, 0, 0
end

local REQUEST_BODY_STEP = "proxy_on_http_request_body"
local RESPONSE_BODY_STEP = "proxy_on_http_response_body"

local _M = {}

function _M.request_headers(ctx)
    return conclude(tell_request_headers(ctx, CALLS_HOLD))
end

function _M.response_headers(ctx)
    return conclude(tell_response_headers(ctx, 0))
end

function _M.request_body(ctx, body, end_of_body)
    local r = get_request()
    if not r then
        return nil, "bad request"
    end
    event.callback, event.calls_hold = const.RPW_REQUEST_BODY, CALLS_HOLD
    set_body(body, end_of_body)
    local rc = run(ctx, r)
    clear_body()
    return conclude(finish(ctx, r, rc, REQUEST_BODY_STEP, whole_body))
end

function _M.response_body(ctx)
    local r = get_request()
    if not r then
        return nil, "bad request"
    end
    local phase = get_phase()
    if HAS_NO_ARG[phase] then
        return failed(RESPONSE_BODY_STEP, "there is no ngx.arg in phase " .. phase)
    elseif phase ~= "body_filter" then
        return nil, "bad request"
    end
    local arg = ngx.arg
    local body, eof = arg[1] or "", arg[2]
    event.callback = const.RPW_RESPONSE_BODY
    set_body(body, eof)
    local rc = run(ctx, r)
    clear_body()
    -- When it failed, too: what it held is passed on as it is.
    local action = outcome.body_action
    if action == BODY_REPLACE then
        arg[1] = ffi_str(outcome.body, outcome.body_length)
    elseif action == BODY_HOLD then
        arg[1] = nil
    end
    if rc == CONTINUE then
        if outcome.ends ~= 0 then
            arg[2] = true
        end
        return true
    end
    return conclude(finish(ctx, r, rc, RESPONSE_BODY_STEP))
end

-- For chains, which end a request themselves: these return what `finish` does. An outcome that is returned, or given to
-- a `take`, is to be read before the next event.
_M.HELD = HELD
_M.CHAINS_HOLD = CHAINS_HOLD
_M.PAUSE = PAUSE
_M.stop = stop
_M.tell_request_headers = tell_request_headers
_M.tell_response_headers = tell_response_headers

function _M.waited()
    return waited
end

-- Whether a filter that let the request continue has answered it since. Returns what `finish` does.
function _M.look_for_answer(ctx)
    local r = get_request()
    local rc = lib.rpw_stream_resume(ctx, r, nil, outcome, error_slot)
    if rc == RESPOND or rc == CLOSE then
        return finish(ctx, r, rc)
    end
    return true
end

-- Waits for a filter that was HELD.
function _M.wait_for_headers(ctx)
    local step = "proxy_on_http_request_headers"
    local r = get_request()
    local rc, err = wait(ctx, r, step)
    if not rc then
        return nil, err
    end
    return finish(ctx, r, rc, step)
end

-- Tells a filter of a piece of the request's body, of which `body` takes the outcomes. Returns what `finish` does.
function _M.tell_request_piece(ctx, piece, is_last, body)
    event.callback, event.calls_hold = const.RPW_REQUEST_BODY, CHAINS_HOLD
    event.piecewise = 1
    set_body(piece, is_last)
    local r = get_request()
    local rc = run(ctx, r)
    clear_body()
    return finish(ctx, r, rc, REQUEST_BODY_STEP, body)
end

-- Tells a filter of a piece of the response's body. Returns what `finish` does, and the outcome, which says what is
-- passed on.
function _M.tell_response_piece(ctx, piece, is_last)
    local r = get_request()
    event.callback = const.RPW_RESPONSE_BODY
    set_body(piece, is_last)
    local rc = run(ctx, r)
    clear_body()
    if rc == CONTINUE then
        return true, nil, outcome
    end
    local ok, what = finish(ctx, r, rc, RESPONSE_BODY_STEP)
    return ok, what, outcome
end

-- Tells a filter of the headers of a response of which nothing was sent, and waits as long as it does. Returns what
-- `finish` does.
function _M.tell_waited_headers(ctx)
    local r = get_request()
    event.callback, event.calls_hold, event.waits = const.RPW_RESPONSE_HEADERS, 0, 1
    local rc = run(ctx, r)
    event.waits = 0
    return finish(ctx, r, rc, RESPONSE_HEADERS_STEP)
end

-- What becomes of a piece of a response that the filter may wait in.
local waited_piece = {}
waited_piece.__index = waited_piece

-- Called for each outcome.
function waited_piece:take(_, _, of_event)
    local action = of_event.body_action
    if action == BODY_REPLACE then
        self.piece = ffi_str(of_event.body, of_event.body_length)
    elseif action == BODY_HOLD then
        self.piece = ""
    end
    self.holds = action == BODY_HOLD or of_event.still_holds ~= 0
    return true
end

-- Tells a filter of a piece of a response's body, and waits at its end as long as the filter does. Returns the piece
-- that continues, whether the body ends with it and whether the filter holds; or nil, what `finish` returns, if the
-- filter failed while it was waited for, and the outcome: unless that was so, it has what was held.
function _M.tell_waited_piece(ctx, piece, is_last)
    local r = get_request()
    local taker = setmetatable({ piece = piece }, waited_piece)
    event.callback, event.waits = const.RPW_RESPONSE_BODY, 1
    set_body(piece, is_last)
    local rc = run(ctx, r)
    clear_body()
    event.waits = 0
    local ends = is_last or outcome.ends ~= 0
    local ok, what = finish(ctx, r, rc, RESPONSE_BODY_STEP, taker)
    if ok then
        return taker.piece, ends, taker.holds
    end
    return nil, ok, what, rc == PAUSE, outcome
end

return _M
