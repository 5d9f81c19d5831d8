package admin

import "sluice/store"

// accessRecords is the name of the rows in the store.
const accessRecords = "access"

// storeRecords are rows in the store.
type storeRecords struct{ of *store.Records }

// RecordsOf returns where a store keeps the rows of access.
func RecordsOf(s *store.Store) Records { return storeRecords{s.Records(accessRecords)} }

func (r storeRecords) View(fn func(RecordsTx) error) error {
	return r.of.View(func(tx store.RecordsTx) error { return fn(tx) })
}

func (r storeRecords) Update(fn func(RecordsTx) error) error {
	return r.of.Update(func(tx store.RecordsTx) error { return fn(tx) })
}
