module verifiers

go 1.24
