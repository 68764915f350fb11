-- The light thread of a worker that hears of messages in shared queues. src/ffi/listen.rs says how.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")

local ffi_str = ffi.string
local ngx = ngx
local exiting = ngx.worker.exiting
local sleep = ngx.sleep
local timer_at = ngx.timer.at
local udp = ngx.socket.udp

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error

local HELLO = 8
local hello = ffi.new("char[?]", HELLO)

-- A receive that times out is an error in the log, so it is given more time than passes between two wakes.
local LONGEST_MS = 2 ^ 31 - 1
local WAKE = 86400

-- Many workers may begin at the same time, and the socket that they say hello to holds some ten datagrams.
local ATTEMPTS = 10
local PAUSE = 0.05

-- Others may send faster than this is received, and then receiving never waits. After so many datagrams it does.
local IN_A_ROW = 64
local REST = 0.001

-- A worker that is to end waits for its light threads. It runs its timers early then.
local function watch(premature)
    while lib.rpw_listen_wake() == 1 do
        sleep(PAUSE)
    end
    if not premature then
        timer_at(WAKE, watch)
    end
end

-- A cosocket that any worker can reach; nil and the cause when there is none.
local function connect()
    local fd = lib.rpw_listen_begin(hello, error_slot)
    if fd < 0 then
        return nil, last_error()
    end
    local sock = udp()
    sock:settimeout(LONGEST_MS)
    local ok, err = sock:setpeername("unix:/proc/self/fd/" .. fd)
    if ok then
        ok, err = sock:send(ffi_str(hello, HELLO))
    end
    if ok and lib.rpw_listen_end(error_slot) < 0 then
        ok, err = nil, last_error()
    end
    if not ok then
        sock:close()
        return nil, err
    end
    return sock
end

local function listen(premature, look)
    if premature then
        return
    end
    local sock, err
    for _ = 1, ATTEMPTS do
        sock, err = connect()
        if sock or exiting() then
            break
        end
        sleep(PAUSE)
    end
    if sock then
        local ok
        ok, err = timer_at(WAKE, watch)
        local received = 0
        while ok and not exiting() do
            look()
            if received == IN_A_ROW then
                received = 0
                sleep(REST)
            end
            local data
            data, err = sock:receive(1)
            if not data then
                break
            end
            received = received + 1
            lib.rpw_listen_received()
        end
        sock:close()
    end
    if not exiting() then
        lib.rpw_listen_failed(err, #err)
        look()
    end
end

local _M = {}

-- `look` is called when there is work.
function _M.begin(look)
    local ok, err = timer_at(0, listen, look)
    if not ok and not exiting() then
        lib.rpw_listen_failed(err, #err)
    end
end

return _M
