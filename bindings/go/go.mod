module libols/ols

// runtime.AddCleanup and the cgo directives noescape and nocallback came with 1.24.
go 1.24
