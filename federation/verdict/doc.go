// Package verdict decides whether a region is down. A region whose federation cannot be
// reached is unreachable, and what is known of it ages; that alone moves no traffic. It is
// down only when those who could know agree that they do not reach it, and its endpoints do not
// answer either. The package is pure: it takes what was said and seen, and a now, and
// returns a [Verdict] that shows its arithmetic.
//
// Who may speak about a region: we, and every other region that we hear at this moment and
// that has tried to reach it; their number is n. k of them must say that they do not reach
// its federation, and that none of its endpoints answered them: more than half, and two when
// there are two. We must be among those: a region that we reach, or whose endpoints answer
// us, is never down for us, whatever others say. So a peer that lies can keep a region from
// being taken for down, where it only ages, but can not bring it down.
//
// Who hears nobody though there are others is as likely cut off itself. Its word counts only
// after its own network proved to work: an endpoint of another region answered it.
package verdict
