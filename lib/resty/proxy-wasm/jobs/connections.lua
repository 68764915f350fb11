-- The connections that a worker shares between calls, for gRPC and for Redis: nginx's cosockets move the bytes, the
-- library speaks the protocol and says which call is sent on which connection.
--
-- Each connection is a timer, which waits for the deadlines of its calls, with light threads that make it and receive.
-- A semaphore wakes the timer when there is something to do.

local clib = require("resty.proxy-wasm.clib")
local handshake = require("resty.proxy-wasm.jobs.handshake")
local resolve = require("resty.proxy-wasm.jobs.resolve")
local semaphore = require("ngx.semaphore")

local ngx = ngx
local ngx_log = ngx.log
local exiting = ngx.worker.exiting
local kill = ngx.thread.kill
local min = math.min
local now = ngx.now
local setmetatable = setmetatable
local sleep = ngx.sleep
local tcp = ngx.socket.tcp
local timer_at = ngx.timer.at
local update_time = ngx.update_time

local target = resolve.target
local word_of = resolve.word

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error

local CONNECT_MS = 60000
-- Nothing comes for as long as a call takes; its deadline is kept elsewhere.
local LONGEST_MS = 2 ^ 31 - 1
-- Seconds between two looks at what is left in a worker that is to end.
local ENDING = 0.25
-- A worker that is to end runs its timers early, and waits for its light threads.
local WATCH = 86400

local _M = { CONNECT_MS = CONNECT_MS, LONGEST_MS = LONGEST_MS }

-- Logs what the library could not do.
local function check(rc)
    if rc < 0 then
        ngx_log(ngx.ERR, "wasm: ", last_error())
    end
end

_M.check = check

-- Wakes who waits for a semaphore, or has the next one not wait.
local function post(sema)
    if sema:count() < 1 then
        sema:post()
    end
end

_M.post = post

-- Has the timer of a connection look.
local function wake(conn)
    post(conn.semaphore)
end

_M.wake = wake

-- Jobs had their share of the worker's time: nginx has a turn. Otherwise a server that sends, or takes, faster than the
-- worker works would never let it come to that.
function _M.rest(ms)
    update_time()
    sleep(ms / 1000)
end

-- Makes a connection. `number` tells the library whose address it is to judge. Returns true, or nil, a word and
-- details.
function _M.open(conn, pool, number)
    local sock, err = tcp()
    if not sock then
        return nil, "connect", err
    end
    conn.sock = sock
    sock:settimeouts(CONNECT_MS, LONGEST_MS, LONGEST_MS)
    local options = { pool = pool .. conn.id }
    local ok
    if conn.port then
        local host, failed, why = target(conn.id, number, conn.host, conn.judged, CONNECT_MS)
        if not host then
            return nil, failed, why
        end
        ok, err = sock:connect(host, conn.port, options)
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

local methods = {}
local metatable = { __index = methods }

-- The connections for a protocol, by its number in the library. `run(premature, conn)` is a connection's timer.
function _M.new(protocol, run)
    return setmetatable({ protocol = protocol, run = run, by_id = {} }, metatable)
end

-- The connection was not made, or broke.
function methods:fail(conn, word, err)
    if conn.broken then
        return
    end
    conn.broken = true
    check(lib.rpw_connection_failed(self.protocol, conn.id, word, #word, err, #err, error_slot))
    wake(conn)
    conn.look()
end

local function end_all(connections, look)
    if not connections.ended then
        connections.ended = true
        check(lib.rpw_connection_end_soon(connections.protocol, error_slot))
        look()
    end
end

local function watch(premature, connections, look)
    if premature then
        return end_all(connections, look)
    end
    connections.watching = timer_at(WATCH, watch, connections, look)
end

-- Makes a connection of `id`, `host`, `port` (nil for a socket's path), `judged`, and `look`, which is called when
-- there is work.
function methods:start(conn)
    conn.semaphore = semaphore.new(0)
    self.by_id[conn.id] = conn
    if not self.watching and not exiting() then
        self.watching = timer_at(WATCH, watch, self, conn.look)
    end
    local ok, err = timer_at(0, self.run, conn)
    if not ok then
        self.by_id[conn.id] = nil
        check(lib.rpw_connection_failed(self.protocol, conn.id, "connect", 7, err, #err, error_slot))
    end
end

-- In a worker that is to end, connections close as soon as they have no calls.
function methods:heed_exit(conn)
    if exiting() then
        end_all(self, conn.look)
    end
end

-- Waits until the connection has something to do, or for so many seconds. `conn.waits_until` says until when.
function methods.wait(_, conn, seconds)
    local wait = exiting() and min(seconds, ENDING) or seconds
    conn.waits_until = now() + wait
    conn.semaphore:wait(wait)
    conn.waits_until = 0
end

-- The connection is over: ends its light threads.
function methods:close(conn, ...)
    for i = 1, select("#", ...) do
        kill((select(i, ...)))
    end
    if conn.sock then
        conn.sock:close()
    end
    self.by_id[conn.id] = nil
end

-- Guests may call Lua below these.
jit.off(check)
jit.off(methods.fail)
jit.off(methods.start)

return _M
