// Package compose proves the container form of the product: the compose file in deploy
// comes up healthy, a whole region of it is killed under load, and the other regions'
// load generators report not one failed call that was safe to repeat.
//
// [Stack] drives docker and compose as a person would and reads the reports that the load
// generators print. The test runs by `make e2e-compose`, which builds the image first; it
// skips, and says so, where no docker engine answers. All traffic stays on the networks
// that the compose file makes.
package compose
