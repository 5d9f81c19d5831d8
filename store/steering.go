package store

// Steering is what decides, beside the weights, where the RPCs of a rule go. It is no
// part of a manifest: an effective set has it, made of the policies that target the
// rule and of the splits that operators have set. The zero value means the weights.
type Steering struct {
	// Pins come first, in their order.
	Pins []Pin
	// Sticky is the metadata, in lower case, whose value decides; empty means turns.
	Sticky string
	// Sides part the space of the hashes of Sticky's values, in ascending order and
	// without a gap; none means in proportion to the weights, in the order of the
	// backends.
	Sides []Side
	// SpillOver gives the RPCs of a backend without endpoints to the others; else
	// they are answered UNAVAILABLE.
	SpillOver bool
	// Overridden tells that the weights are an operator's, not the declared ones.
	Overridden bool
}

// Pin sends the RPCs whose metadata has this value to one backend, whatever the weights.
type Pin struct {
	Header  string `json:"header"` // in lower case
	Value   string `json:"value"`
	Backend string `json:"backend"` // its key, "namespace/name"
}

// Side is a piece of the space 0 to 1<<32, from where the one before it ends.
type Side struct {
	End     uint64 `json:"end"`     // exclusive
	Backend string `json:"backend"` // its key, "namespace/name"
}
