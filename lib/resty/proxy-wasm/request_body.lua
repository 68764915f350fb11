-- The request's body for the filters of a chain: read in pieces from where nginx keeps it, and written anew only when a
-- filter changes it.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local stream = require("resty.proxy-wasm.stream")

local ffi_str = ffi.string
local io_open = io.open
local min = math.min
local ngx_req = ngx.req
local setmetatable = setmetatable
local sleep = ngx.sleep
local tonumber = tonumber

local const = clib.const
local BODY_UNCHANGED = const.RPW_BODY_UNCHANGED
local BODY_HOLD = const.RPW_BODY_HOLD
local BODY_PASS = const.RPW_BODY_PASS

local outcome = stream.outcome
local tell = stream.tell_request_piece
local finish = stream.finish_request_piece

-- Bytes of a piece, which is a string of Lua's for a moment. What is in memory, or not larger, comes as a whole.
local PIECE = 1024 * 1024

local Source = {}
Source.__index = Source

-- The body as it is now; nil when there is none, nil and why when it cannot be read.
local function open()
    ngx_req.read_body()
    local data = ngx_req.get_body_data()
    if data then
        return setmetatable({ data = data, size = #data }, Source)
    end
    local path = ngx_req.get_body_file()
    if not path then
        return nil
    end
    local file, err = io_open(path, "rb")
    if not file then
        return nil, err
    end
    local size
    size, err = file:seek("end")
    if not size then
        file:close()
        return nil, err
    end
    return setmetatable({ file = file, path = path, size = size }, Source)
end

-- The piece at an offset; nil and why when it cannot be read.
function Source:read(at)
    if self.data then
        return self.data
    end
    local ok, err = self.file:seek("set", at)
    if not ok then
        return nil, err
    end
    local piece
    piece, err = self.file:read(min(PIECE, self.size - at))
    if not piece then
        return nil, self.path .. ": " .. (err or "it became shorter")
    end
    return piece
end

function Source:close()
    if self.file then
        self.file:close()
        self.file = nil
    end
end

-- Appends bytes of the source to the new body.
function Source:copy(from, to)
    while from < to do
        local piece, err = self:read(from)
        if not piece then
            return nil, err
        end
        if from + #piece > to then
            piece = piece:sub(1, to - from)
        end
        ngx_req.append_body(piece)
        from = from + #piece
    end
    return true
end

local function append(data, length)
    local at = 0
    while at < length do
        local size = min(PIECE, length - at)
        ngx_req.append_body(ffi_str(data + at, size))
        at = at + size
    end
end

-- Does with the body what an outcome says of a piece that ends at `to`. `body.done` is how much of the source is dealt
-- with: while nothing was changed, all of that goes on as it is.
local function take(body, source, piece, to)
    local action = outcome.body_action
    if action == BODY_HOLD then
        return true
    end
    local length = tonumber(outcome.body_length)
    if not body.changed and action ~= BODY_UNCHANGED and action ~= BODY_PASS then
        body.changed = true
        if body.done == 0 and to == source.size and length <= PIECE then
            ngx_req.set_body_data(ffi_str(outcome.body, length))
            body.done, body.finished = to, true
            return true
        end
        ngx_req.init_body()
        local ok, err = source:copy(0, body.done)
        if not ok then
            return nil, err
        end
    end
    if body.changed then
        if action == BODY_UNCHANGED then
            ngx_req.append_body(piece)
        else
            append(outcome.body, length)
        end
    end
    body.done = to
    return true
end

-- Completes a body that was changed; what no outcome was about goes on as it is.
local function complete(body, source)
    if not body.changed or body.finished then
        return true
    end
    local ok, err = source:copy(body.done, source.size)
    if ok then
        ngx_req.finish_body()
        body.finished = true
    end
    return ok, err
end

-- One piece. Returns what the stream's `finish` does.
local function give_piece(ctx, body, source, at)
    local piece, err = source:read(at)
    if not piece then
        return nil, err
    end
    local to = at + #piece
    local is_last = to >= source.size
    local rc = tell(ctx, piece, is_last)
    if rc >= 0 then
        local ok
        ok, err = take(body, source, piece, to)
        if ok and is_last then
            ok, err = complete(body, source)
        end
        if not ok then
            return nil, err
        end
    end
    if is_last and rc >= 0 then
        -- The filter may hold the request now, or end it: nothing must stay open until then.
        source:close()
    end
    local ok, what = finish(ctx, rc)
    return ok, what, to
end

local _M = {}

-- Gives the request's body to a filter. Returns what the stream's `finish` does, and whether there was a body.
function _M.give(ctx)
    local source, err = open()
    if not source then
        if err then
            return nil, err, true
        end
        return true, nil, false
    end
    local body = { done = 0, changed = false, finished = false }
    local at = 0
    repeat
        if at > 0 then
            -- Other requests have a turn.
            sleep(0)
        end
        local ok, what, to = give_piece(ctx, body, source, at)
        if ok ~= true then
            if ok == nil and source.file then
                -- The request may go on without the filter.
                complete(body, source)
            end
            source:close()
            return ok, what, true
        end
        at = to
    until at >= source.size
    return true, nil, true
end

return _M
