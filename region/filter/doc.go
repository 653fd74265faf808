// Package filter is the filter language of lists of instances: the grammar of HashiCorp's
// go-bexpr, which users of Consul know, compiled to closures over an instance. The library's
// own evaluator looks fields up by reflection for every instance; a differential fuzz test
// holds the two to the same answers.
//
//	Zone == "a" and Status != draining
//	"blue" in Tags or Metadata.team matches "^pay"
//	any Ports as name, port { name == "grpc" and port == 9090 }
//
// What the library finds wrong only when it meets an instance (an unknown field, a number
// that is none, a comparison that a field does not have) is an error of Parse here. Not taken
// over: an index into a list, any and all inside one another (they could say nothing more),
// and names that hide a field.
//
// It is pure: no input or output, no clock, no state but the cache.
package filter
