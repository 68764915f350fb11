package = "lua-resty-proxy-wasm"
version = "dev-1"
rockspec_format = "3.0"

-- To be run from a checkout, as `luarocks make`; needs cargo.
source = {
    url = "git+file://.",
}

description = {
    summary = "Proxy-Wasm filters on stock OpenResty",
    license = "Apache-2.0",
}

supported_platforms = { "linux" }

-- ngx_lua's LuaJIT is Lua 5.1 with FFI; lua-resty-core comes with nginx's Lua module.
dependencies = {
    "lua == 5.1",
}

build = {
    type = "command",
    build_command = "./build.sh build",
    install_command = "LUADIR=$(LUADIR) LIBDIR=$(LIBDIR) INCLUDEDIR=$(PREFIX)/include ./build.sh install",
}
