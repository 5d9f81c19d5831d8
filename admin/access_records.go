package admin

// Records are the rows that access keeps: accounts, sessions, tokens, the set-up
// link, the audit log. What Update wrote is durable when it returns nil, all of
// it or nothing.
type Records interface {
	View(func(RecordsTx) error) error
	Update(func(RecordsTx) error) error
}

// RecordsTx is one transaction. Values are valid until it ends.
type RecordsTx interface {
	Get(key string) (value []byte, found bool, err error)
	Put(key string, value []byte) error
	Delete(key string) error
	// Ascend visits the rows whose key is from or greater, until yield returns false.
	Ascend(from string, yield func(key string, value []byte) bool) error
	// Descend visits the rows whose key is less than before, the greatest first.
	Descend(before string, yield func(key string, value []byte) bool) error
}
