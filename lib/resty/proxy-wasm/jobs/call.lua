-- One HTTP call of a filter: nginx's cosockets move the bytes, the library speaks HTTP.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local handshake = require("resty.proxy-wasm.jobs.handshake")
local resolve = require("resty.proxy-wasm.jobs.resolve")

local ffi_str = ffi.string
local ngx = ngx
local ngx_log = ngx.log
local now = ngx.now
local sleep = ngx.sleep
local tcp = ngx.socket.tcp
local update_time = ngx.update_time

local target = resolve.target
local word = resolve.word

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local last_error = clib.last_error
local RECEIVE = const.RPW_CALL_RECEIVE
local DONE = const.RPW_CALL_DONE
local GONE = const.RPW_CALL_GONE

local CHUNK = 16384
local IDLE_MS = 60000
local POOL_SIZE = 64

-- How a cosocket says that the upstream has closed the connection: before this side sent, or after.
local CLOSED = { closed = true, ["connection reset by peer"] = true }

local io = ffi.new("rpw_io_t")

-- The sockets of calls under way, to be closed when nothing waits any more.
local sockets = {}

-- By the time of nginx's loop, which is that of the event that brought us here.
local function remaining(deadline)
    return (deadline - now()) * 1000
end

-- A connection: a pooled one unless `fresh`.
local function connect(id, request, deadline, fresh)
    local left = remaining(deadline)
    if left <= 0 then
        return nil, "timeout", ""
    end
    local host, pool = request.host, request.pool
    if request.port then
        local is_judged, why
        host, is_judged, why = target(id, 0, host, request.judged, left)
        if not host then
            return nil, is_judged, why
        elseif is_judged then
            -- Connections that others made without such a look are in another pool.
            pool = pool .. "@" .. host
        end
    end
    left = remaining(deadline)
    if left <= 0 then
        return nil, "timeout", ""
    end
    local sock, err = tcp()
    if not sock then
        return nil, "connect", err
    end
    sockets[id] = sock
    request.set_ms = left
    sock:settimeouts(left, left, left)
    local options = { pool = fresh and pool .. ":fresh" or pool }
    local ok
    if request.port then
        ok, err = sock:connect(host, request.port, options)
    else
        ok, err = sock:connect(host, options)
    end
    if not ok or sock:getreusedtimes() == 0 then
        request.owner.connections = request.owner.connections + 1
    end
    if not ok then
        return nil, word(err, "connect"), err
    end
    if request.tls_by_library then
        local kept = sock:getreusedtimes() > 0 and 1 or 0
        if lib.rpw_call_connected(id, kept, error_slot) < 0 then
            return nil, "tls", last_error()
        end
    elseif request.server_name and sock:getreusedtimes() == 0 then
        ok, err = handshake(sock, request.server_name)
        if not ok then
            return nil, word(err, "tls"), err
        end
    end
    return sock
end

-- Sends and receives until the response is whole. Returns true, or a word and details. The third is true when the
-- connection was found closed before anything came.
local function exchange(id, request, sock, deadline)
    local data, eof, got = "", 0, false
    while true do
        local rc = lib.rpw_call_advance(id, data, #data, eof, io, error_slot)
        if rc == GONE then
            return nil
        elseif rc ~= RECEIVE and rc ~= DONE then
            return "protocol", last_error()
        end
        local reusable, rest_ms = io.reusable == 1, io.rest_ms
        local left = remaining(deadline)
        if left <= 0 then
            return "timeout", ""
        end
        if left ~= request.set_ms then
            request.set_ms = left
            sock:settimeouts(left, left, left)
        end
        local err
        if io.length > 0 then
            local sent
            sent, err = sock:send(ffi_str(io.data, io.length))
            if not sent and rc == RECEIVE then
                return word(err, "closed"), err, not got
            end
        end
        if rc == DONE then
            return true, reusable
        end
        if rest_ms > 0 then
            -- An upstream may send faster than this is read, and then reading never waits.
            update_time()
            sleep(rest_ms / 1000)
        end
        data, err = sock:receiveany(CHUNK)
        if data then
            got = true
        elseif not got and CLOSED[err] and sock:getreusedtimes() > 0 then
            return "closed", err, true
        elseif err == "closed" then
            data, eof = "", 1
        else
            return word(err, "closed"), err
        end
    end
end

local function attempt(id, request, deadline, fresh)
    local sock, failed, details = connect(id, request, deadline, fresh)
    if not sock then
        return failed, details
    end
    local reused = sock:getreusedtimes() > 0
    local result, more, closed = exchange(id, request, sock, deadline)
    -- One that cannot be kept, since the upstream has closed it meanwhile, is still to be closed.
    -- The library knows its own by their pools, of which a fresh one has none.
    local keep = result == true and more and not (fresh and request.tls_by_library)
    if not (keep and sock:setkeepalive(IDLE_MS, POOL_SIZE)) then
        sock:close()
    elseif request.tls_by_library then
        lib.rpw_call_kept(id)
    end
    return result, more, closed and reused
end

local _M = {}

-- Makes the call of a job and tells its guest of the response or the failure.
function _M.run(request)
    local id = request.id
    local deadline = now() + request.timeout_ms / 1000
    local result, details, stale = attempt(id, request, deadline)
    if stale and lib.rpw_call_restart(id) == 0 then
        -- The upstream had closed a kept connection, as it may at any time: not the call's fault.
        result, details = attempt(id, request, deadline, true)
    end
    sockets[id] = nil
    if not result then
        return
    end
    local failed = result ~= true and result or ""
    details = failed ~= "" and details or ""
    local rc = lib.rpw_call_end(id, failed, #failed, details, #details, error_slot)
    if rc < 0 then
        ngx_log(ngx.ERR, "wasm: ", last_error())
    end
end

-- Guests may call Lua below it.
jit.off(_M.run)

-- Closes the connection of a call whose light thread was killed.
function _M.close(id)
    local sock = sockets[id]
    sockets[id] = nil
    if sock then
        sock:close()
    end
end

return _M
