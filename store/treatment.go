package store

// Treatment is what becomes of the requests of a rule, beside where they go. It is no
// part of a manifest: an effective set has it, made of the policies that target the
// rule and, in an HTTPRoute, of its CORS filter.
type Treatment struct {
	CORS        *CORS       // nil lets no other origin in
	Translation Translation // with the defaults filled in
	Expose      Expose
}
