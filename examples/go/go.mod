module libols/examples/go

go 1.24.0

require (
	gonum.org/v1/gonum v0.17.0
	libols/ols v0.0.0
	libols/ols/olsgonum v0.0.0
)

replace (
	libols/ols => ../../bindings/go
	libols/ols/olsgonum => ../../bindings/go/olsgonum
)
