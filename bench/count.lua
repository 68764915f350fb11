-- For wrk: ends it after the number of answers that the environment variable COUNT gives.
local left = tonumber(os.getenv("COUNT"))

-- wrk calls the global of this name.
-- luacheck: globals response
function response()
    left = left - 1
    if left == 0 then
        os.exit(0)
    end
end
