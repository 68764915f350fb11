-- An asynchronous function of Lua that a filter called before: it runs in a light thread.

local clib = require("resty.proxy-wasm.clib")
local foreign = require("resty.proxy-wasm.foreign")

local call = foreign.call
local ngx_log = ngx.log

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error

local _M = {}

-- Runs the function of a job and hands the filter its result.
function _M.run(job)
    local owner = job.owner
    -- Its light thread has another round only when the function waits for something.
    local rounds = owner.rounds
    owner.semaphore:post()
    lib.rpw_foreign_begin(job.id)
    local ok, result = call(job.name, job.arguments)
    local yielded = owner.rounds ~= rounds
    local rc = lib.rpw_foreign_end(job.id, ok and 1 or 0, yielded and 1 or 0, result, #result, error_slot)
    if rc < 0 then
        ngx_log(ngx.ERR, "wasm: ", last_error())
    end
end

-- Guests may call Lua below it.
jit.off(_M.run)

return _M
