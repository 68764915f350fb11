-- The request's body for the filters of a chain: read in pieces from where nginx keeps it, and written again only when
-- a filter changes it.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local stream = require("resty.proxy-wasm.http.stream")

local ffi_str = ffi.string
local io_open = io.open
local min = math.min
local ngx_req = ngx.req
local ngx_var = ngx.var
local get_method = ngx.req.get_method
local http_version = ngx.req.http_version
local pcall = pcall
local setmetatable = setmetatable
local sleep = ngx.sleep
local tonumber = tonumber
local tostring = tostring

local const = clib.const
local BODY_UNCHANGED = const.RPW_BODY_UNCHANGED
local BODY_HOLD = const.RPW_BODY_HOLD
local BODY_PASS = const.RPW_BODY_PASS
local BODY_REPLACE = const.RPW_BODY_REPLACE

local tell = stream.tell_request_piece
local PAUSE = stream.PAUSE

-- Bytes of a piece, which is a string of Lua's for a moment. What is in memory, or not larger, comes as a whole.
local PIECE = 1024 * 1024
-- Seconds between two pieces.
local TURN = 0.001

local Source = {}
Source.__index = Source

-- Opens the file when it is closed.
function Source:open()
    if self.data or self.file then
        return true
    end
    local file, err = io_open(self.path, "rb")
    if not file then
        return nil, err
    end
    self.file = file
    return true
end

-- Has nginx read the body. False when there can be none; nil and why when it cannot.
local function read_body()
    if http_version() < 2 or ngx_var.http_content_length then
        ngx_req.read_body()
        return true
    end
    -- OpenResty 1.25.3.1 refuses that without a length, which HTTP/2 does not need.
    local ok, err = pcall(ngx_req.read_body)
    if ok then
        return true
    end
    local method = get_method()
    if method == "GET" or method == "HEAD" then
        return false
    end
    return nil, "this nginx reads no body over HTTP/2 without a content-length: " .. tostring(err)
end

-- The body as it is now; nil when there is none, nil and why when it cannot be read.
local function open()
    local readable, reason = read_body()
    if not readable then
        return nil, reason
    end
    local data = ngx_req.get_body_data()
    if data then
        return setmetatable({ data = data, size = #data }, Source)
    end
    local path = ngx_req.get_body_file()
    if not path then
        return nil
    end
    local source = setmetatable({ path = path }, Source)
    local ok, err = source:open()
    if not ok then
        return nil, err
    end
    source.size, err = source.file:seek("end")
    if not source.size then
        source:close()
        return nil, err
    end
    return source
end

-- The piece at an offset; nil and why when it cannot be read.
function Source:read(at)
    if self.data then
        return self.data
    end
    local ok, err = self:open()
    if ok then
        ok, err = self.file:seek("set", at)
    end
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

-- What becomes of the body of a source. `done` is how much of the source is dealt with: while nothing was changed, all
-- of that is passed on as it is; then the new body is written.
local Body = {}
Body.__index = Body

function Body:append(piece)
    if piece ~= "" then
        ngx_req.append_body(piece)
        self.is_empty = false
    end
end

-- Appends bytes of the source.
function Body:copy(from, to)
    while from < to do
        local piece, err = self.source:read(from)
        if not piece then
            return nil, err
        end
        if from + #piece > to then
            piece = piece:sub(1, to - from)
        end
        self:append(piece)
        from = from + #piece
    end
    return true
end

-- Begins to write it.
function Body:change()
    -- nginx may remove it.
    local ok, err = self.source:open()
    if not ok then
        return nil, err
    end
    self.changed = true
    ngx_req.init_body()
    return self:copy(0, self.done)
end

-- Replaces the whole.
function Body:set(data)
    ngx_req.set_body_data(data)
    self.done, self.changed, self.finished = self.source.size, true, true
    return true
end

-- Does what an outcome says of the piece.
function Body:apply(outcome)
    local action = outcome.body_action
    if action == BODY_HOLD then
        return true
    end
    local piece, to = self.piece, self.to
    local length = tonumber(outcome.body_length)
    if not self.changed and action ~= BODY_UNCHANGED and action ~= BODY_PASS then
        if self.done == 0 and to == self.source.size and length <= PIECE then
            return self:set(ffi_str(outcome.body, length))
        end
        local ok, err = self:change()
        if not ok then
            return nil, err
        end
    end
    if self.changed then
        if action == BODY_UNCHANGED then
            self:append(piece)
        else
            for at = 0, length - 1, PIECE do
                self:append(ffi_str(outcome.body + at, min(PIECE, length - at)))
            end
        end
    end
    self.done = to
    return true
end

-- Completes it; what no outcome was about is passed on as it is.
function Body:complete()
    if not self.changed or self.finished then
        return true
    end
    local ok, err = self:copy(self.done, self.source.size)
    if not ok then
        return nil, err
    end
    if self.is_empty then
        -- nginx complains of a buffer with nothing in it.
        return self:set("")
    end
    ngx_req.finish_body()
    self.finished = true
    return true
end

-- Does what an outcome says of the piece; `rc` is the action that comes with it.
function Body:take(rc, _, outcome)
    local ok, err = self:apply(outcome)
    if ok and self.to >= self.source.size then
        if rc ~= PAUSE then
            ok, err = self:complete()
        end
        -- The filter may hold the request now, or end it, and nothing must stay open until then; but what nginx may
        -- have removed cannot be opened again.
        if rc ~= PAUSE or not self.changed then
            self.source:close()
        end
    end
    return ok, err
end

-- One piece. Returns what the stream's `finish` does.
local function give_piece(ctx, body)
    local source = body.source
    local piece, err = source:read(body.to)
    if not piece then
        return nil, err
    end
    body.piece, body.to = piece, body.to + #piece
    return tell(ctx, piece, body.to >= source.size, body)
end

local _M = {}

-- Gives the request's body to a filter. Returns whether there was a body, and what the stream's `finish` does.
function _M.give(ctx)
    local source, err = open()
    if not source then
        if err then
            return true, nil, err
        end
        return false, true
    end
    local body = setmetatable({
        source = source,
        piece = "",
        to = 0,
        done = 0,
        changed = false,
        finished = false,
        is_empty = true,
    }, Body)
    repeat
        if body.to > 0 then
            -- Other requests have a turn.
            sleep(TURN)
        end
        local ok, what, status = give_piece(ctx, body)
        if ok ~= true then
            if ok == nil then
                -- The request may continue without the filter.
                body:complete()
            end
            source:close()
            return true, ok, what, status
        end
    until body.to >= source.size
    return true, true
end

-- What becomes of a body that turned out to be empty.
local nothing = {}

function nothing.take(_, _, _, outcome)
    if outcome.body_action == BODY_REPLACE then
        ngx_req.set_body_data(ffi_str(outcome.body, outcome.body_length))
    end
    return true
end

-- Gives a filter the end of a body that turned out to be empty.
function _M.give_end(ctx)
    return tell(ctx, "", true, nothing)
end

return _M
