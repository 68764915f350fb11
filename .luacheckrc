std = "ngx_lua"
codes = true
max_line_length = 120
