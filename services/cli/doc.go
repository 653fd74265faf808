// Package cli is the nearside command line: a file per verb, one output layer, one place
// for exit codes.
//
// [Main] builds the command tree, runs one command and returns its exit code. The verbs
// speak HTTP v1 to a region node (flag --addr). Data goes to stdout, messages go to
// stderr. -o json prints the API's own types (sdk/api), so its shape is as stable as they
// are; tables are for people and may change.
//
// Every flag can also be set by an environment variable, NEARSIDE_ and the flag's name in
// upper case with underscores; a flag on the command line wins.
//
// What this package does not do: decide anything. Where traffic goes is sdk/route's
// business, run by the registry and the SDK.
package cli
