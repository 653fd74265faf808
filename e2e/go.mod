module github.com/nearside/nearside/e2e

go 1.26.0

require (
	github.com/nearside/nearside/sdk v0.0.0-00010101000000-000000000000
	go.uber.org/goleak v1.3.0
)

replace github.com/nearside/nearside/sdk => ../sdk

replace github.com/nearside/nearside/region => ../region

replace github.com/nearside/nearside/federation => ../federation

replace github.com/nearside/nearside/services => ../services
