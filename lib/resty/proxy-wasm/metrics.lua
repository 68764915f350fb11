-- Metrics for Lua, and for Prometheus.

local ffi = require("ffi")
local clib = require("resty.proxy-wasm.clib")

local ffi_str = ffi.string
local tonumber = tonumber

local lib = clib.lib
local error_slot = clib.error_slot
local last_error = clib.last_error

local list_slot = ffi.new("const rpw_metric_t *[1]")
local text_slot = ffi.new("const char *[1]")
local size_slot = ffi.new("size_t[1]")

local function labels_of(metric)
    local labels = {}
    for at = 0, tonumber(metric.labels_length) - 1 do
        local pair = metric.labels[at]
        labels[ffi_str(pair.name, pair.name_length)] = ffi_str(pair.value, pair.value_length)
    end
    return labels
end

local function describe(metric)
    local described = {
        name = ffi_str(metric.name, metric.name_length),
        type = ffi_str(metric.kind, metric.kind_length),
        labels = labels_of(metric),
    }
    local ends = tonumber(metric.buckets_length)
    if ends == 0 then
        described.value = metric.value
        return described
    end
    local buckets = {}
    for at = 1, ends do
        local bucket = metric.buckets[at - 1]
        buckets[at] = { le = bucket.le, count = tonumber(bucket.count) }
    end
    described.buckets, described.sum, described.count = buckets, metric.value, buckets[ends].count
    return described
end

local _M = {}

function _M.list()
    if lib.rpw_metrics(list_slot, size_slot, error_slot) < 0 then
        return nil, last_error()
    end
    local all = {}
    for at = 1, tonumber(size_slot[0]) do
        all[at] = describe(list_slot[0][at - 1])
    end
    return all
end

function _M.prometheus()
    if lib.rpw_prometheus(text_slot, size_slot, error_slot) < 0 then
        return nil, last_error()
    end
    return ffi_str(text_slot[0], size_slot[0])
end

return _M
