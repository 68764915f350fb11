-- Tells Lua's collector what plugin contexts weigh.
--
-- A plugin context looks like a few bytes to the collector, and is memory of the host and of the guest that
-- it does not see. A server that makes one in every request (the documented form) would have thousands of
-- dead ones before the collector finds reason to look, and guests slow down with the number of contexts that
-- they keep. So contexts count as allocated memory: when those made since the last cycle weigh as much as
-- Lua's heap, a cycle runs, in steps.

local collectgarbage = collectgarbage

-- What one takes of a worker: docs/operations.md, made by bench/sizes.sh.
local WEIGHT_KIB = 0.5
local CHECK_EVERY = 32
-- A step does at most this much: a longer one would be felt by the requests that wait.
local LONGEST_STEP_KIB = 2048

local made, unchecked = 0, 0

local function relieve()
    made = made + unchecked
    unchecked = 0
    local heap = collectgarbage("count")
    if made * WEIGHT_KIB > heap and collectgarbage("step", math.min(heap / 2, LONGEST_STEP_KIB)) then
        made = 0
    end
end

local _M = {}

-- To be called for every plugin context that is made.
function _M.made_context()
    unchecked = unchecked + 1
    if unchecked >= CHECK_EVERY then
        relieve()
    end
end

return _M
