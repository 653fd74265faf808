// Package rules names the rules of the protocol that can be switched off one by one, so that
// the simulation can show that it would notice their absence. The programs have no way to
// make anything but the zero value, in which all rules hold.
package rules

// Off says which rules do not hold.
type Off struct {
	StaleEpoch bool // a replica applies what is of an older history than it holds
	Refutation bool // an origin does not answer a reader's proof of a lost history
	Guard      bool // a mass removal is not held back
	Term       bool // a publisher with an older term is believed
	Disconnect bool // a replica forgets its rows when its stream ends
	Join       bool // a delta is applied where it does not join on, and no digest is compared
}
