// Package backup is the file that a region's records are saved in: written by a running
// node ([Write]), looked at ([Read], [Inspect]), and put into a new store by services/backup.
//
//	magic     16 bytes
//	header    length, and JSON: format, region, epoch, revision, records, created, node
//	chunks    length and bytes, each at most 1 MiB; length 0 ends them. Together one zstd
//	          stream of records (key, revision, value), in key order, then their number
//	sha256    of everything before
//
// Lengths are of four bytes, big endian; inside the zstd stream they are varints. So it can
// be written and read as a stream, a file that ends early is noticed, and so is one bit of
// it that changed. Every record of the store is in it, whatever its key: what a later
// version keeps there is carried along.
package backup
