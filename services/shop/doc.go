// Package shop is the e-commerce sample: five small HTTP services that find each other
// only through Nearside's SDK, and a load generator that plays their shoppers.
//
//	shopper ── storefront ─┬─ users
//	                       ├─ catalog
//	                       └─ orders ─┬─ catalog
//	                                  └─ payments
//
// [Run] hosts any of the services in one process: each has its own listener, its own
// registration and its own SDK client, and calls the others by name (http://orders/…), so
// that a region can lose or lack any of them. [Load] sends a steady stream of calls to
// http://storefront/… and reports once a second as [Tick].
//
// Every response says who made it in the headers [HeaderRegion] and [HeaderInstance];
// what touched payments says where that was in [HeaderPaymentsRegion].
//
// It is a sample: data is generated and lives in memory, nobody logs in, and two
// instances of a service share nothing.
package shop
