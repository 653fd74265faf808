package peer

import (
	"errors"
	"net/http"

	"github.com/nearside/nearside/sdk/api"
)

// Refusal is of somebody who asked for something and is not the region that it says.
type Refusal struct {
	Cause   string // one of Refusals
	From    string // its network address
	Claimed api.Region
	Proved  api.Region // by its certificate; "" = nothing, or nobody is asked for one
	Err     error
}

// Refusals are the causes, in the words of events.
var Refusals = []string{api.BecauseNoIdentity, api.BecauseCertificate, api.BecauseOurName}

// identify returns the region that the other end of a connection has proved to be.
func (s *Server) identify(r *http.Request) (api.Region, error) {
	who, err := s.cfg.PeerRegion(r)
	if err == nil {
		return who, nil
	}
	var known *api.Error
	if !errors.As(err, &known) {
		known = &api.Error{Code: api.CodeUnauthorized, Detail: "the peer is not known: " + err.Error(), Remedy: "use a certificate that names its region"}
	}
	return "", s.refuse(r, api.BecauseNoIdentity, "", known)
}

// refuse tells of a refusal and returns its error.
func (s *Server) refuse(r *http.Request, cause string, proved api.Region, err error) error {
	if s.cfg.OnRefused != nil {
		s.cfg.OnRefused(Refusal{Cause: cause, From: r.RemoteAddr, Claimed: api.Region(r.URL.Query().Get("reader")), Proved: proved, Err: err})
	}
	return err
}
