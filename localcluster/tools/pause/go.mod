module rfuav.io/localcluster/tools/pause

go 1.24.0
