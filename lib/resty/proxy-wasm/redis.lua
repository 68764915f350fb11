-- The Redis connections of a worker: nginx's cosockets move the bytes, the library speaks Redis and says which call
-- goes on which connection.
--
-- Each connection is a timer with a light thread: that one makes it and receives, the timer's own sends and waits for
-- the deadlines of its calls. A server that takes nothing until the first of these holds back its own connection only.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local handshake = require("resty.proxy-wasm.handshake")
local resolve = require("resty.proxy-wasm.resolve")
local semaphore = require("ngx.semaphore")

local ffi_str = ffi.string
local ngx = ngx
local ngx_log = ngx.log
local exiting = ngx.worker.exiting
local from_hosts = resolve.from_hosts
local word_of = resolve.word
local kill = ngx.thread.kill
local max = math.max
local min = math.min
local sleep = ngx.sleep
local spawn = ngx.thread.spawn
local tcp = ngx.socket.tcp
local timer_at = ngx.timer.at
local update_time = ngx.update_time

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local last_error = clib.last_error
local STOP = const.RPW_WORK_STOP
local WAIT = const.RPW_WORK_WAIT

local CHUNK = 65536
local CONNECT_MS = 60000
-- Deadlines are kept elsewhere.
local LONGEST_MS = 2 ^ 31 - 1
-- Seconds between two looks at what is left in a worker that is to end.
local ENDING = 0.25

local io = ffi.new("rpw_io_t")
local wait_ms = ffi.new("uint32_t[1]")

-- By their numbers.
local connections = {}

local function check(rc)
    if rc < 0 then
        ngx_log(ngx.ERR, "wasm: ", last_error())
    end
end

local function wake(conn)
    if conn.semaphore:count() < 1 then
        conn.semaphore:post()
    end
end

local function fail(conn, word, err)
    if not conn.broken then
        conn.broken = true
        check(lib.rpw_redis_failed(conn.id, word, #word, err, #err, error_slot))
        wake(conn)
        conn.look()
    end
end

-- True, or nil, a word and details.
local function connect(conn)
    local sock, err = tcp()
    if not sock then
        return nil, "connect", err
    end
    conn.sock = sock
    sock:settimeouts(CONNECT_MS, LONGEST_MS, LONGEST_MS)
    local options = { pool = "wasm:redis:" .. conn.id }
    local ok
    if conn.port then
        ok, err = sock:connect(from_hosts(conn.host) or conn.host, conn.port, options)
    else
        ok, err = sock:connect(conn.host, options)
    end
    if not ok then
        return nil, word_of(err, "connect"), err
    end
    if conn.server_name then
        ok, err = handshake(sock, conn.server_name)
        if not ok then
            return nil, word_of(err, "tls"), err
        end
    end
    return true
end

local function receive(conn)
    local ok, word, err = connect(conn)
    if not ok then
        return fail(conn, word, err)
    end
    check(lib.rpw_redis_connected(conn.id, error_slot))
    conn.connected = true
    wake(conn)
    local sock = conn.sock
    while true do
        local data
        data, err = sock:receiveany(CHUNK)
        if not data then
            return fail(conn, err == "timeout" and "timeout" or "closed", err)
        end
        local rc = lib.rpw_redis_receive(conn.id, data, #data, 0, io, error_slot)
        local rest = io.rest_ms
        check(rc)
        conn.look()
        if rc == STOP then
            conn.broken = true
            return wake(conn)
        elseif rest > 0 then
            -- A server may send faster than this is read, and then reading never waits.
            update_time()
            sleep(rest / 1000)
        end
    end
end

-- Sends what is to be sent. Returns the seconds to wait, nil when the connection is to be closed.
local function step(conn)
    while true do
        local rc = lib.rpw_redis_next(conn.id, io, wait_ms, error_slot)
        local data = io.length > 0 and ffi_str(io.data, io.length)
        local wait = wait_ms[0]
        conn.look()
        if rc ~= STOP and rc ~= WAIT then
            check(rc)
            return 1
        elseif data then
            -- What nobody waits for is sent before the connection is closed.
            conn.sock:settimeouts(CONNECT_MS, max(wait, 1), LONGEST_MS)
            local ok, err = conn.sock:send(data)
            if not ok then
                fail(conn, err == "timeout" and "timeout" or "closed", err)
                return nil
            end
        end
        if rc == STOP then
            return nil
        elseif not data then
            return wait / 1000
        end
    end
end

local ended = false

local function end_soon(look)
    if not ended then
        ended = true
        check(lib.rpw_redis_end_soon(error_slot))
        look()
    end
end

local function run(_, conn)
    conn.receiver = spawn(receive, conn)
    while not conn.broken do
        if exiting() then
            end_soon(conn.look)
        end
        local wait = step(conn)
        if not wait then
            break
        end
        if not conn.broken then
            conn.semaphore:wait(exiting() and min(wait, ENDING) or wait)
        end
    end
    kill(conn.receiver)
    if conn.sock then
        conn.sock:close()
    end
    connections[conn.id] = nil
end

-- Guests may call Lua below these.
jit.off(fail)
jit.off(receive)
jit.off(step)

-- A worker that is to end runs its timers early, and waits for its light threads.
local WATCH = 86400
local watching = false

local function watch(premature, look)
    if premature then
        return end_soon(look)
    end
    watching = timer_at(WATCH, watch, look)
end

local _M = {}

local function start(work, look)
    local conn = {
        id = work.id,
        host = ffi_str(work.host, work.host_length),
        port = work.port ~= 0 and work.port or nil,
        server_name = work.tls == 1 and ffi_str(work.server_name, work.server_name_length) or nil,
        look = look,
        semaphore = semaphore.new(0),
    }
    connections[conn.id] = conn
    if not watching and not exiting() then
        watching = timer_at(WATCH, watch, look)
    end
    local ok, err = timer_at(0, run, conn)
    if not ok then
        connections[conn.id] = nil
        check(lib.rpw_redis_failed(conn.id, "connect", 7, err, #err, error_slot))
    end
end

jit.off(start)

-- The connection that is described has something to do. `look` is called when there is work.
function _M.wake(work, look)
    local conn = connections[work.id]
    if conn then
        wake(conn)
    else
        start(work, look)
    end
end

return _M
