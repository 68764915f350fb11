-- A response that filters can wait in: another server is asked for it here, the filters are told of it piece by piece,
-- and what they let go is sent. header_filter and body_filter cannot wait.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local header_lines = require("resty.proxy-wasm.http.header_lines")
local origin = require("resty.proxy-wasm.http.origin")
local response = require("resty.proxy-wasm.http.response")
local stream = require("resty.proxy-wasm.http.stream")

local concat = table.concat
local error = error
local ffi_str = ffi.string
local ngx = ngx
local ngx_exit = ngx.exit
local ngx_flush = ngx.flush
local ngx_header = ngx.header
local ngx_log = ngx.log
local ngx_print = ngx.print
local ngx_req = ngx.req
local ngx_send_headers = ngx.send_headers

local BODY_HOLD = clib.const.RPW_BODY_HOLD
local BODY_LOST = clib.const.RPW_BODY_LOST
local BODY_REPLACE = clib.const.RPW_BODY_REPLACE

local has_no_body = response.has_no_body
local tell_waited_headers = stream.tell_waited_headers
local tell_waited_piece = stream.tell_waited_piece

local BAD_GATEWAY = ngx.HTTP_BAD_GATEWAY

local Answer = {}
Answer.__index = Answer

-- A filter answered in place of the response, whose headers go. Does not return. When some of the response was sent the
-- library refuses that, and the response is cut off.
function Answer:answer_instead(local_response)
    self.origin:close()
    if local_response then
        header_lines.clear()
    end
    return stream.stop(local_response)
end

-- A filter failed. Returns when the response continues without it.
function Answer:skip(index, err)
    if self.may_skip(self.contexts[index], err) then
        return
    end
    self.origin:close()
    if self.sent then
        error("the response is cut off: a filter failed", 0)
    end
    return self.refuse()
end

function Answer:cut_off(why)
    self.origin:close()
    ngx_log(ngx.ERR, "wasm: the response of ", self.address, " is cut off: ", why)
    if self.sent then
        error("the response is cut off", 0)
    end
    return ngx_exit(BAD_GATEWAY)
end

function Answer:tell_headers()
    for i = #self.contexts, 1, -1 do
        local ok, what = tell_waited_headers(self.contexts[i])
        if ok == false then
            return self:answer_instead(what)
        elseif not ok then
            self:skip(i, what)
        end
    end
end

-- What is passed on of a piece whose event failed, and of what the filter held.
local function rescued(piece, held, waited, outcome)
    local action = outcome.body_action
    if waited then
        return concat(held or {}) .. piece
    elseif action == BODY_REPLACE then
        return ffi_str(outcome.body, outcome.body_length)
    elseif action == BODY_HOLD then
        return ""
    elseif action == BODY_LOST then
        return nil
    end
    return piece
end

-- Tells a filter of a piece. Returns what is passed on, and whether the body ends with it.
function Answer:tell(index, piece, is_last)
    local ctx, held = self.contexts[index], self.held
    local left, ends, what, waited, outcome = tell_waited_piece(ctx, piece, is_last)
    if left then
        if not self.fails_open(ctx) then
            return left, ends
        elseif what then
            -- The library's copy is gone when a wait is over.
            held[index] = held[index] or {}
            held[index][#held[index] + 1] = piece
        else
            held[index] = nil
        end
        return left, ends
    elseif ends == false then
        return self:answer_instead(what)
    end
    left = rescued(piece, held[index], waited, outcome)
    self:skip(index, what)
    if not left then
        return self:cut_off("a filter is gone with what it held")
    end
    return left, is_last
end

-- Tells the filters of a piece. Returns what is to be sent, and whether the response ends with it.
function Answer:pass(piece, is_last)
    for i = #self.contexts, 1, -1 do
        if piece ~= "" or is_last then
            piece, is_last = self:tell(i, piece, is_last)
        end
    end
    return piece, is_last
end

function Answer:send(piece, is_last)
    if piece == "" and not is_last then
        return
    elseif not self.has_body then
        -- Its headers are all of it.
        return
    elseif not self.sent then
        if is_last then
            ngx_header["Content-Length"] = #piece
        else
            -- ngx_lua would collect a response of HTTP/1.0 that it has to begin itself.
            ngx_send_headers()
        end
    end
    if piece ~= "" then
        local ok = ngx_print(piece)
        ok = ok and (is_last or ngx_flush(true))
        if not ok then
            -- The client is gone.
            self.origin:close()
            return ngx_exit(ngx.ERROR)
        end
        self.sent = true
    end
end

-- Sends what the server at `address` answers, after the filters. `may_skip(ctx, err)`: says of a filter that failed
-- whether the response continues without it. `fails_open(ctx)`: whether it would. `refuse()`: answers in place of a
-- response of which a filter failed.
return function(contexts, address, may_skip, fails_open, refuse)
    local from, status, headers = origin.ask(origin.address(address))
    if not from then
        ngx_log(ngx.ERR, "wasm: no response of ", address, ": ", status)
        return ngx_exit(BAD_GATEWAY)
    end
    local self = setmetatable({
        origin = from,
        address = address,
        contexts = contexts,
        may_skip = may_skip,
        fails_open = fails_open,
        refuse = refuse,
        -- By index: the pieces that a filter holds which fails open.
        held = {},
        sent = false,
    }, Answer)
    origin.show(status, headers)
    self:tell_headers()
    self.has_body = ngx_req.get_method() ~= "HEAD" and not has_no_body(ngx.status)
    local ends = false
    while not ends do
        local piece, is_last = from:read()
        if not piece then
            return self:cut_off("it ended too early (" .. is_last .. ")")
        end
        piece, ends = self:pass(piece, is_last)
        self:send(piece, ends)
    end
    from:close()
    return ngx_exit(ngx.HTTP_OK)
end
