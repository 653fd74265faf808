// Package events is the event log of a region's node: changes of note, kept on disk within
// fixed bounds, read by id, time, kind and subject, and followed as they happen.
//
// # Promises
//
// Recording never waits: [Log.Record] puts the event into a bounded queue, and one
// goroutine writes it. What finds no room in the queue is counted, and the count is an
// event itself.
//
// What was written survives kill -9 (it is handed to the kernel before anyone can read
// it), and a power cut but for the last 200 ms. A torn tail is cut off when the log is
// opened. Ids rise and are never given twice: after an end that was not in good order a
// million of them are left out, since readers may have seen some that are lost. Readers are
// told so by a gap.
//
// The log never takes more than its bounds on disk: whole segments of 4 MiB leave, oldest
// first, when it would exceed 64 MiB or when they are older than seven days.
//
// A disk that cannot be written costs durability and nothing else: the newest events are
// kept in memory, the log says so once, tries the disk again every ten seconds, and then
// writes what memory still holds.
//
// A follower is a position, not a queue: however slow it is, it costs nothing but its own
// goroutine, and when the events at its position are gone it is told so by a gap.
//
// # On disk
//
// A segment is a file NUMBER.events: the magic, then frames. A frame is a head of 24 bytes
// (little endian: length of the payload, CRC-32C of all the rest of the frame, id, time in
// milliseconds since 1970) and the event as JSON. Frames of a file have rising ids; files
// are read in the order of their numbers, and a frame whose id is not above the last one
// is skipped (after a failed disk the same events may be written twice).
package events
