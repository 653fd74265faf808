// Package check judges instances by the results of their checks. It is pure: results and
// the time come in, statuses come out; package probe asks the instances and package rounds
// says when.
//
// A [State] is one check. Its meaning is that of Kubernetes' probes:
//
//   - startup gates: until all startup checks of an instance passed once, the others are not
//     run ([Due]) and the instance is starting. A startup check that passed stops;
//   - readiness begins as not passing (status starting), liveness as passing;
//   - only a threshold's worth of equal results in a row changes a status; below it the
//     status stays what it was;
//   - a result of [Unknown] is discarded: the check could not be carried out, which says
//     nothing of the instance;
//   - while an instance drains, readiness goes on and the others rest.
//
// What differs, because the region does not own the processes: a startup check that failed
// makes the instance critical and goes on (nobody would start a new container), and a
// failed liveness check removes the instance after deregister_after instead of killing it.
//
// Flapping is damped ([Damping]): a check that changes too often keeps its worse status
// until it passed without a failure for a while, which grows.
//
// [Judge] makes one status of an instance's checks, [Suspicion] notices that most of them
// began to fail at once, which tells more of this node than of the instances, and [Guard]
// says which addresses may be asked at all.
package check
