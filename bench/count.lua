-- For wrk: ends it after the number of answers that the environment variable COUNT gives.
local left = tonumber(os.getenv("COUNT"))

function response()
    left = left - 1
    if left == 0 then
        os.exit(0)
    end
end
