-- The light thread of a worker that does what filters want done outside of requests: calls, functions, ticks.
--
-- Every call and every function is a light thread of its own below it. ngx_lua keeps a little of each until the one
-- that started it ends, so after some calls another takes over, and the old one ends with its last call.

local ffi = require("ffi")
local call = require("resty.proxy-wasm.call")
local clib = require("resty.proxy-wasm.clib")
local foreign = require("resty.proxy-wasm.foreign")
local semaphore = require("ngx.semaphore")

local ffi_str = ffi.string
local min = math.min
local ngx = ngx
local ngx_log = ngx.log
local exiting = ngx.worker.exiting
local get_phase = ngx.get_phase
local kill = ngx.thread.kill
local spawn = ngx.thread.spawn
local thread_wait = ngx.thread.wait
local timer_at = ngx.timer.at
local next = next

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local last_error = clib.last_error
local START = const.RPW_WORK_START
local STOP = const.RPW_WORK_STOP
local WAIT = const.RPW_WORK_WAIT
local RUN = const.RPW_WORK_RUN

-- Calls that one light thread starts.
local GENERATION = 1000

local waits = lib.rpw_work_waits()
local work = ffi.new("rpw_work_t")

-- Who started the call of an id: its semaphore, its light threads, those that ended, those to be killed.
local owners = {}
local current

local function run(owner, id, task, ...)
    task(id, ...)
    owner.ended[id] = true
    owner.semaphore:post()
end

local function begin_thread(owner, ...)
    local id = work.id
    owners[id] = owner
    owner.started = owner.started + 1
    owner.threads[id] = spawn(run, owner, id, ...)
end

local function start_call(owner)
    local request = {
        host = ffi_str(work.host, work.host_length),
        port = work.port ~= 0 and work.port or nil,
        pool = ffi_str(work.pool, work.pool_length),
        server_name = work.tls == 1 and ffi_str(work.server_name, work.server_name_length) or nil,
        timeout_ms = work.timeout_ms,
    }
    begin_thread(owner, call.run, request)
end

local function start_function(owner)
    local name = ffi_str(work["function"], work.function_length)
    begin_thread(owner, foreign.run, name, ffi_str(work.arguments, work.arguments_length))
end

local function stop(id)
    local owner = owners[id]
    if owner then
        owner.unwanted[id] = true
        owner.semaphore:post()
    end
end

-- Lets go of the light threads that ended and ends those that nobody waits for.
local function sweep(owner)
    for id in pairs(owner.unwanted) do
        local thread = owner.threads[id]
        -- One that ended by itself meanwhile cannot be killed.
        if thread and not owner.ended[id] and kill(thread) then
            call.close(id)
            owner.threads[id], owners[id] = nil, nil
        end
        owner.unwanted[id] = nil
    end
    for id in pairs(owner.ended) do
        thread_wait(owner.threads[id])
        owner.ended[id], owner.threads[id], owners[id] = nil, nil, nil
    end
end

local begin

-- Asks for work until there is none. Returns the seconds to wait.
local function do_work(owner)
    while true do
        local rc = lib.rpw_work_next(work, error_slot)
        if rc == START then
            start_call(owner)
        elseif rc == STOP then
            stop(work.id)
        elseif rc == RUN then
            start_function(owner)
        elseif rc == WAIT then
            return work.wait_ms / 1000
        else
            ngx_log(ngx.ERR, "wasm: ", last_error())
            return 1
        end
        if owner.started >= GENERATION then
            current = nil
            begin()
            return 1
        end
    end
end

-- Guests may call Lua below it.
jit.off(do_work)

-- Seconds. A worker that is to end waits for its light threads, so they look up now and then. One that has had nothing
-- to do for a while ends, so that an idle worker is not woken.
local LONGEST = 0.25
-- What the library answers when nothing ticks.
local NOTHING_COMES = 60
local IDLE_WAITS = 8

local function is_over(owner, idle)
    if next(owner.threads) ~= nil then
        return false
    end
    return owner ~= current or exiting() or idle >= IDLE_WAITS
end

local function loop(premature, owner)
    if premature then
        return
    end
    local idle = 0
    while true do
        local wait = LONGEST
        if owner == current then
            wait = do_work(owner)
        end
        sweep(owner)
        idle = wait >= NOTHING_COMES and idle + 1 or 0
        if is_over(owner, idle) then
            if owner == current then
                current = nil
                lib.rpw_work_listen(nil)
            end
            return
        end
        owner.semaphore:wait(min(wait, LONGEST))
    end
end

function begin()
    local owner = { started = 0, threads = {}, ended = {}, unwanted = {}, semaphore = semaphore.new(0) }
    local ok, err = timer_at(0, loop, owner)
    if not ok then
        ngx_log(ngx.ERR, "wasm: no timer for what filters want done: ", err)
        return
    end
    current = owner
    -- `current` keeps the semaphore as long as the library knows it.
    lib.rpw_work_listen(owner.semaphore.sem)
end

local _M = {}

-- To be called after the library was: starts the light thread when it is needed.
function _M.look()
    if waits[0] ~= 0 and not current and get_phase() ~= "init" and not exiting() then
        begin()
    end
end

_M.waits = waits

return _M
