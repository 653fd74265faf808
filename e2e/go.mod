module github.com/nearside/nearside/e2e

go 1.26.0

require (
	github.com/nearside/nearside/sdk v0.0.0-00010101000000-000000000000
	go.uber.org/goleak v1.3.0
)

require (
	github.com/BurntSushi/toml v1.4.1-0.20240526193622-a339e1f7089c // indirect
	github.com/nearside/nearside/federation v0.0.0-00010101000000-000000000000
	github.com/nearside/nearside/region v0.0.0-00010101000000-000000000000
	github.com/nearside/nearside/services v0.0.0-00010101000000-000000000000
	golang.org/x/exp/typeparams v0.0.0-20231108232855-2478ac86f678 // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	honnef.co/go/tools v0.8.2 // indirect
	mvdan.cc/gofumpt v0.12.0 // indirect
)

replace github.com/nearside/nearside/sdk => ../sdk

replace github.com/nearside/nearside/region => ../region

replace github.com/nearside/nearside/federation => ../federation

replace github.com/nearside/nearside/services => ../services

tool (
	honnef.co/go/tools/cmd/staticcheck
	mvdan.cc/gofumpt
)
