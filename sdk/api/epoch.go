package api

// EpochRaise is the body of POST /v1/regions/{region}/epoch: the region's history restarted,
// and others hold one that the present epoch does not outrank.
type EpochRaise struct {
	// Above is the generation that the epoch is to be above. A region that is above it already
	// stays as it is, so the request may be repeated.
	Above uint64 `json:"above"`
}

// MaxEpochJump bounds how far one EpochRaise goes beyond the present generation, so that a
// broken peer cannot use up the numbers.
const MaxEpochJump = 1 << 32

// EpochRaised answers an EpochRaise: where the region stands now.
type EpochRaised struct {
	Region   Region `json:"region"`
	Epoch    Epoch  `json:"epoch"`
	Revision uint64 `json:"revision"`
}
