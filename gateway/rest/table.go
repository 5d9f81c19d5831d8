package rest

// Table finds methods by the paths of their annotations. It does not change.
type Table struct{}
