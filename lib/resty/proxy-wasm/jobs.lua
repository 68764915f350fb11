-- The light thread of a worker that does what filters want done outside of requests: calls, functions, ticks.
--
-- Calls and functions run in light threads below it, each of which continues with the next one. A few that have nothing
-- to do are kept. ngx_lua keeps a little of each light thread, and nginx of each connection that they open, until the
-- one that started them ends. So after some of these another takes over, and the old one ends with the last of its own.
--
-- Jobs can bring jobs without end, so that a light thread would never come to wait. The library says when they have had
-- their share of the worker's time. Then this light thread sleeps, by a timer, since nginx's loop looks at other events
-- before it looks at timers again. Only this light thread runs callbacks that are due. Others hand out calls and
-- functions.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")
local call = require("resty.proxy-wasm.jobs.call")
local foreign = require("resty.proxy-wasm.jobs.foreign")
local grpc = require("resty.proxy-wasm.jobs.grpc")
local queue = require("resty.proxy-wasm.jobs.queue")
local redis = require("resty.proxy-wasm.jobs.redis")
local semaphore = require("resty.proxy-wasm.semaphore")

local ffi_str = ffi.string
local max = math.max
local min = math.min
local ngx = ngx
local ngx_log = ngx.log
local exiting = ngx.worker.exiting
local get_phase = ngx.get_phase
local kill = ngx.thread.kill
local sleep = ngx.sleep
local spawn = ngx.thread.spawn
local table_remove = table.remove
local thread_wait = ngx.thread.wait
local timer_at = ngx.timer.at
local next = next
local now = ngx.now
local update_time = ngx.update_time

local lib = clib.lib
local const = clib.const
local error_slot = clib.error_slot
local last_error = clib.last_error
local START = const.RPW_WORK_START
local STOP = const.RPW_WORK_STOP
local LISTEN = const.RPW_WORK_LISTEN
local WAIT = const.RPW_WORK_WAIT
local RUN = const.RPW_WORK_RUN
local CONNECT = const.RPW_WORK_CONNECT
local WAKE = const.RPW_WORK_WAKE
local REST = const.RPW_WORK_REST
local WATCH = const.RPW_WORK_WATCH
local FOLLOW = const.RPW_WORK_FOLLOW
local REDIS = const.RPW_WORK_REDIS

-- Light threads that one starts, and connections that these open.
local GENERATION = 1000
-- Light threads that are kept with nothing to do.
local IDLE = 64
-- Seconds; the one that started them wakes them before.
local FOREVER = 3600

local waits = lib.rpw_work_waits()
local work = ffi.new("rpw_work_t")

-- The jobs by their ids: calls and functions that run or are to be run.
local jobs = {}
-- Jobs that no light thread has taken.
local pending = {}
local current
local look

-- Runs jobs, one after the other, until there are enough light threads without one.
local function serve(owner, number, job)
    while job do
        job.thread = number
        if not job.unwanted then
            job.task(job)
        end
        jobs[job.id] = nil
        look()
        job = nil
        if owner == current and owner.idle < IDLE then
            owner.idle = owner.idle + 1
            local woken
            repeat
                woken = owner.ready:wait(FOREVER)
            until woken
            job = table_remove(owner.handed, 1)
        end
    end
    owner.ended[number] = true
    owner.semaphore:post()
end

-- Gives a job to a light thread that has none, or leaves it to the one that starts them.
local function hand(job)
    jobs[job.id] = job
    local owner = current
    -- Light threads that are woken run all in one go, which functions may make long.
    if owner.idle > 0 and job.task ~= foreign.run then
        owner.idle = owner.idle - 1
        job.owner = owner
        owner.handed[#owner.handed + 1] = job
        owner.ready:post()
    else
        pending[#pending + 1] = job
        owner.semaphore:post()
    end
end

local function call_job()
    return {
        id = work.id,
        task = call.run,
        host = ffi_str(work.host, work.host_length),
        port = work.port ~= 0 and work.port or nil,
        judged = work.judged == 1,
        pool = ffi_str(work.pool, work.pool_length),
        server_name = work.tls == 1 and ffi_str(work.server_name, work.server_name_length) or nil,
        tls_by_library = work.tls == 2,
        timeout_ms = work.timeout_ms,
    }
end

local function function_job()
    return {
        id = work.id,
        task = foreign.run,
        name = ffi_str(work["function"], work.function_length),
        arguments = ffi_str(work.arguments, work.arguments_length),
    }
end

local function stop(id)
    local job = jobs[id]
    if job then
        job.unwanted = true
        if job.thread then
            job.owner.unwanted[job] = true
            job.owner.semaphore:post()
        end
    end
end

-- Seconds that functions may take before nginx has a turn: that of the other jobs, see `rpw_work_next`.
local SHARE = 0.005

-- Starts light threads for the jobs that have none. Returns nil; or, when functions took their share of the time and
-- jobs are left, the seconds that they took.
local function start(owner)
    local began
    while #pending > 0 do
        local job = table_remove(pending, 1)
        if job.task == foreign.run and not began then
            update_time()
            began = now()
        end
        local number = owner.started + 1
        owner.started = number
        job.owner = owner
        owner.threads[number] = spawn(serve, owner, number, job)
        if began and #pending > 0 then
            update_time()
            local taken = now() - began
            if taken >= SHARE then
                return taken
            end
        end
    end
end

-- Lets go of the light threads that ended, and ends those whose calls nothing waits for.
local function sweep(owner)
    for job in pairs(owner.unwanted) do
        -- One that has ended by itself meanwhile continues with another job.
        if jobs[job.id] == job and kill(owner.threads[job.thread]) then
            call.close(job.id)
            owner.threads[job.thread], jobs[job.id] = nil, nil
        end
        owner.unwanted[job] = nil
    end
    for number in pairs(owner.ended) do
        thread_wait(owner.threads[number])
        owner.ended[number], owner.threads[number] = nil, nil
    end
end

-- Ends the light threads that have nothing to do.
local function dismiss(owner)
    if owner.idle > 0 then
        owner.ready:post(owner.idle)
        owner.idle = 0
    end
end

local working = false
local watch

-- `on_follow` is called when another worker has replaced a plugin.
local _M = {}

-- What `do_work` is asked for: see `rpw_work_next`.
local HAND_OUT, RUN_CALLBACKS, RUN_AFTER_TIMER = 0, 1, 2

-- Asks for work until there is none. Returns the seconds to wait, and whether jobs have had their share of the time.
local function do_work(turn)
    working = true
    local wait, rests
    repeat
        local rc = lib.rpw_work_next(turn, work, error_slot)
        turn = min(turn, RUN_CALLBACKS)
        if rc == START then
            hand(call_job())
        elseif rc == STOP then
            stop(work.id)
        elseif rc == LISTEN then
            queue.begin(look)
        elseif rc == RUN then
            hand(function_job())
        elseif rc == CONNECT then
            grpc.connect(work.id, ffi_str(work.host, work.host_length), work.port ~= 0 and work.port or nil,
                work.judged == 1, work.tls == 1, look)
        elseif rc == WAKE then
            grpc.wake(work.id)
        elseif rc == REDIS then
            redis.wake(work, look)
        elseif rc == WAIT then
            wait = work.wait_ms / 1000
        elseif rc == REST then
            wait, rests = work.wait_ms / 1000, true
        elseif rc == WATCH then
            watch()
        elseif rc == FOLLOW then
            _M.on_follow()
        else
            ngx_log(ngx.ERR, "wasm: ", last_error())
            -- Whatever is wrong must not keep a worker that is to end.
            wait, work.over = 1, 1
        end
    until wait
    working = false
    return wait, rests
end

-- Guests may call Lua below it.
jit.off(do_work)

-- Seconds. A worker that is to end waits for its light threads, so they look up now and then. One that has had nothing
-- to do for a while ends, so that an idle worker is not woken.
local LONGEST = 0.25
-- What the library answers when nothing ticks.
local NOTHING_COMES = 60
local IDLE_WAITS = 8

local begin

local function is_over(owner, idle_waits)
    -- In a worker that is to end it stays until all filters have ended. What requests ask for later starts another.
    local idle = next(jobs) == nil and idle_waits >= IDLE_WAITS
    if owner == current and (exiting() and work.over == 1 or idle) then
        current = nil
        lib.rpw_work_listen(nil)
    end
    if owner == current then
        return false
    end
    dismiss(owner)
    return next(owner.threads) == nil
end

local function loop(_, owner)
    local idle_waits = 0
    local turn = RUN_CALLBACKS
    while true do
        owner.rounds = owner.rounds + 1
        local wait, rests = LONGEST, false
        if owner == current then
            wait, rests = do_work(turn)
            local taken = start(owner)
            if taken then
                wait, rests = rests and max(wait, taken) or taken, true
            end
        end
        sweep(owner)
        if owner == current and (owner.started >= GENERATION or owner.connections >= GENERATION) then
            begin()
        end
        if rests then
            -- It asks again by itself, so it need not be woken.
            owner.wait = 0
            -- A timer counts from the time that nginx has seen last.
            update_time()
            sleep(wait)
            turn = RUN_AFTER_TIMER
        else
            owner.wait = wait
            idle_waits = wait >= NOTHING_COMES and idle_waits + 1 or 0
            if is_over(owner, idle_waits) then
                return
            end
            local posted = owner.semaphore:wait(min(wait, LONGEST))
            turn = posted and RUN_CALLBACKS or RUN_AFTER_TIMER
        end
    end
end

-- Phases without timers.
local HAS_NO_TIMERS = { init = true, exit_worker = true }

-- To be called after the library was, since it may have got work: has it done.
function look()
    if waits[0] == 0 or working or HAS_NO_TIMERS[get_phase()] then
        return
    end
    local owner = current
    if owner then
        if do_work(HAND_OUT) < owner.wait then
            owner.semaphore:post()
        end
    else
        begin()
    end
end

function begin()
    local owner = {
        -- For the light thread itself, and for those below it that have nothing to do.
        semaphore = semaphore.new(),
        ready = semaphore.new(),
        idle = 0,
        handed = {},
        started = 0,
        connections = 0,
        rounds = 0,
        threads = {},
        ended = {},
        unwanted = {},
        wait = LONGEST,
    }
    local ok, err = timer_at(0, loop, owner)
    if not ok then
        ngx_log(ngx.ERR, "wasm: no timer for what filters want done: ", err)
        return
    end
    current = owner
    lib.rpw_work_listen(owner.semaphore.sem)
end

-- nginx runs timers early in a worker that is to end: then filters are told.
local WATCH_SECONDS = 86400

local function on_watch(premature)
    if not premature then
        watch()
    elseif current then
        current.semaphore:post()
    else
        begin()
    end
end

function watch()
    timer_at(WATCH_SECONDS, on_watch)
end

_M.look = look
_M.waits = waits

return _M
