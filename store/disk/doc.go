// Package disk keeps rows durably: buckets of keys and values, changed in
// transactions that are on the disk when Update returns, and found again after a
// crash, a damage or a full disk.
//
// # Files
//
//	sluice.db       the rows, in bbolt
//	sluice.journal  what each Update changed, since the copy
//	sluice.copy     a verified copy of sluice.db, an hour old at most
//	NAME.damaged-T  a file of that name that could not be used at time T
//	NAME.new        being written; removed when the store is opened
//
// bbolt is crash-safe, but it has no checksum on what it keeps, it goes by the
// meta page before when the newest one is damaged, and a file that is cut short
// ends the process that has it mapped. So here every row carries a checksum, the
// file says how many rows it has and what all of them together hash to, and it is
// read as a whole, by something that believes nothing of it, before it is mapped.
//
// # An Update
//
// It is appended to the journal and synced; then bbolt commits, which syncs twice.
// At any moment copy and journal together hold every change that was acknowledged:
// a copy is verified, renamed and synced before the journal drops what it holds.
//
// # Open
//
//	sluice.db                      copy, journal               then
//	good                           good                        entries that it lacks are replayed
//	good, but older than the       copy good                   copy and journal take over
//	  beginning of the journal
//	damaged, missing, of a later   copy good                   copy and journal take over
//	  version                      no copy, whole journal      the journal takes over
//	                               else                        refused, nothing is touched
//	good                           journal damaged, missing    the journal is begun anew
//
// What took over is said by Recovery; what could not be used is kept. An entry that
// is not whole at the end of the journal is what a crash leaves of an Update that
// nobody was told of, and is dropped. One that is not whole with whole ones behind
// it is damage.
//
// # What it does not do
//
// Two files that were damaged, or set back in time, at once may cost what was
// written last; Recovery says so when anything is left to tell it by. Nothing
// protects from who may write the files: the checksums are no signatures.
package disk
