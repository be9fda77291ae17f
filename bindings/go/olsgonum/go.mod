module libols/ols/olsgonum

go 1.24.0

require (
	gonum.org/v1/gonum v0.17.0
	libols/ols v0.0.0
)

replace libols/ols => ../
