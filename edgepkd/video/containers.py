"""The one place where FFmpeg opens what others wrote: which formats, protocols and sizes it may.

Formats and protocols are on a list of what is allowed. No format on it opens a second file or a
port; those that do (playlists) are opened if the user says so. Pictures over the limits are refused
before they are allocated, in every decoder, FFmpeg's own look at the first frames included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import IO, Any, Final

import av
from av.container import InputContainer
from av.packet import Packet

from edgepkd.errors import SourceError
from edgepkd.video.limits import Limits
from edgepkd.video.mp4_index import check_index
from edgepkd.video.oversize import (
    INT_MAX,
    Lines,
    check_logged,
    check_refused,
    codec_options,
    errors_logged,
)
from edgepkd.video.pipes import Pipe

_PICTURES: Final = (
    "alias_pix,bmp_pipe,brender_pix,cri_pipe,dds_pipe,dpx_pipe,exr_pipe,gem_pipe,gif_pipe,"
    "hdr_pipe,ico,image2,j2k_pipe,jpeg_pipe,jpegls_pipe,jpegxl_anim,jpegxl_pipe,jpegxs_pipe,"
    "pam_pipe,pbm_pipe,pcx_pipe,pfm_pipe,pgm_pipe,pgmyuv_pipe,pgx_pipe,phm_pipe,photocd_pipe,"
    "pictor_pipe,png_pipe,ppm_pipe,psd_pipe,qdraw_pipe,qoi_pipe,sgi_pipe,sunrast_pipe,tiff_pipe,"
    "vbn_pipe,webp_pipe,xbm_pipe,xpm_pipe,xwd_pipe")
_EARLY: Final = _PICTURES + (
    ","
    "apng,asf,av1,avi,avs2,avs3,cavsvideo,dirac,dnxhd,evc,gif,h261,h263,h264,hevc,ivf,m4v,"
    "matroska,mjpeg,mjpeg_2000,mov,mpegvideo,nut,obu,vc1,vc1test,vvc,yuv4mpegpipe")
"""Formats that say in their header which streams they hold."""
_LATE: Final = (
    # Video. Not among them: mlv, which opens the files that continue it.
    "4xm,amv,anm,apv,avs,bethsoftvid,bfi,bink,bmv,c93,cdxl,cine,dfa,dhav,dsicin,dv,dxa,ea,"
    "film_cpk,filmstrip,flic,flv,gdv,gxf,hnm,hxvs,idcin,iff,ifv,ingenient,ipmovie,ipu,iss,iv8,ivr,"
    "jv,kux,live_flv,lmlm4,luodat,lvf,lxf,mgsts,mm,mods,moflex,mpeg,mpegts,mpjpeg,msnwctcp,mtv,mv,"
    "mvi,mxf,mxg,nc,nsv,nuv,ogg,paf,pdv,pmp,psxstr,pva,r3d,rl2,rm,roq,rpl,sdr2,ser,sga,siff,"
    "simbiosis_imx,smjpeg,smk,smush,swf,thp,tiertexseq,tmv,ty,usm,vivo,vividas,vmd,wc3movie,wsvqa,"
    "wtv,xmv,yop"
    # Sound and text, so that the error can say what they are.
    ","
    "aac,ac3,aiff,amr,ape,ass,au,caf,dts,eac3,flac,mp3,srt,tak,tta,tty,w64,wav,webvtt,wv")
_PLAYLISTS: Final = {
    "hls": ("an HLS playlist", re.compile(rb"\A(?:\xef\xbb\xbf)?\s*#EXTM3U")),
    "concat": ("a concat script", re.compile(rb"\A(?:\xef\xbb\xbf)?\s*ffconcat version")),
    "sdp": ("an SDP session description", re.compile(rb"\Av=0\s|(?m:^c=IN IP)")),
    "dash": ("a DASH manifest", re.compile(rb"\A(?:\xef\xbb\xbf)?\s*<[^\0]*<?MPD[\s>]")),
}
_FILE, _NO_PROTOCOL = "file", "none"
_PLAYLIST_PROTOCOLS: Final = "file,crypto,data,http,https,httpproxy,tcp,tls,udp,rtp,srtp"
_CAMERA_FORMATS: Final = "rtsp,asf,mpegts"
_CAMERA_PROTOCOLS: Final = "tcp,tls"

_HEAD_BYTES: Final = 2048
_PREVIEW_BYTES: Final = 5_000_000
"""As far as FFmpeg looks for the streams of a file."""
_H264_PREVIEW_FRAMES: Final = 24
"""FFmpeg decodes up to 20 to see how far pictures are reordered; of other codecs one."""
# Titles of old files are in whatever code page their writer had; nothing here reads them.
_TITLES: Final = "replace"


def open_container(
    file: str | IO[bytes] | Pipe, *, name: str, limits: Limits,
    options: Mapping[str, str] | None = None,
) -> InputContainer:
    """Open a file, by its path or as a file object that stands at its beginning.

    `options` are FFmpeg's for the container; `name` is what messages call it.

    Raises:
        LimitError: it asks for more than `limits` allow.
        SourceError: it is a playlist, or of a format that is not on the list.
        av.FFmpegError, OSError, ValueError: it cannot be opened.
    """
    opening = _Opening(file, name, limits, options or {})
    opening.check_index()
    failure: Exception = SourceError(
        f"{name} is of a format that is not on the list of those that are opened.",
        hint="Convert it, for example: ffmpeg -i IN -c:v libx264 OUT.mp4.")
    try:
        container = opening.of(_EARLY)
        if container is None:
            opening.preview()
            container = opening.of(_LATE)
    except (av.FFmpegError, OSError, ValueError) as error:
        container, failure = None, error
    if container is None:
        container = opening.of_playlist()
    if container is None:
        raise failure
    if isinstance(file, Pipe):
        file.settle()
    return container


def open_picture(file: IO[bytes], *, name: str, limits: Limits, fps: str) -> InputContainer:
    """Open the first picture of a sequence. Raises as `open_container`."""
    container = _Opening(file, name, limits, {"framerate": fps}).of(_PICTURES)
    if container is None:
        raise SourceError(f"{name} holds pictures of a kind that cannot be read as video.",
                          hint="Convert them to JPEG or PNG.")
    return container


def open_rtsp(address: str, *, limits: Limits, timeout_s: tuple[float, float]) -> InputContainer:
    """Open a camera that speaks RTSP, through TCP, within the times (to open, to read).

    Raises:
        av.FFmpegError, OSError, ValueError: it cannot be opened.
    """
    return av.open(
        address, mode="r", timeout=timeout_s, metadata_errors=_TITLES,
        options={"rtsp_transport": "tcp", **codec_options(limits)},
        container_options=_allowing(_CAMERA_FORMATS, _CAMERA_PROTOCOLS, limits))


def open_device(path: str, *, limits: Limits) -> InputContainer:
    """Open a camera that is plugged in. Raises as `open_rtsp`."""
    return av.open(path, mode="r", format="v4l2", metadata_errors=_TITLES,
                   options=codec_options(limits),
                   container_options={"max_streams": _max_streams(limits)})


class _Opening:
    """One source, opened until a format fits."""

    def __init__(self, file: str | IO[bytes] | Pipe, name: str, limits: Limits,
                 options: Mapping[str, str]) -> None:
        self._file, self._name, self._limits = file, name, limits
        self._options = dict(options)

    def check_index(self) -> None:
        """Look at what the index of an MP4 claims.

        Raises:
            LimitError: frames that it has no room for.
        """
        self._rewind()
        if isinstance(self._file, str):
            with open(self._file, "rb") as file:
                check_index(file, limits=self._limits, name=self._name)
        elif not isinstance(self._file, Pipe):
            check_index(self._file, limits=self._limits, name=self._name)

    def of(self, formats: str) -> InputContainer | None:
        """Open it as one of `formats`; None if it is of another."""
        if isinstance(self._file, Pipe):
            # Its index cannot be looked at beforehand; what begins as an MP4 does is no pipe here.
            formats = formats.replace(",mov,", ",")
        return self._opened(_allowing(formats, self._protocols(), self._limits))

    def of_playlist(self) -> InputContainer | None:
        """Open the playlist that it is, if that is allowed; None if it is none.

        Raises:
            SourceError: it is one, and playlists are not allowed.
        """
        head = self._head()
        kind = next((kind for kind, (_, mark) in _PLAYLISTS.items() if mark.search(head)), None)
        if kind is None:
            return None
        if not self._limits.playlists:
            raise SourceError(
                f"{self._name} is {_PLAYLISTS[kind][0]}, which names other files or addresses; "
                "they are not opened.",
                hint="If you trust all that it names: --allow-playlists.")
        formats = ",".join([*_PLAYLISTS, _EARLY, _LATE])
        return self._opened(_allowing(formats, _PLAYLIST_PROTOCOLS, self._limits), format=kind)

    def preview(self) -> None:
        """Decode the first pictures within the limits, as FFmpeg will do without.

        Streams that a format does not name in its header get their decoders from FFmpeg itself,
        which takes no settings for them.

        Raises:
            LimitError: a picture is too large.
        """
        settings = _allowing(_LATE, self._protocols(), self._limits)
        try:
            container = self._opened({**settings, "codec_whitelist": "none"})
        except (av.FFmpegError, OSError, ValueError):
            return  # it will fail in the same way when it is opened
        if container is None:
            return
        with closing(container), suppress(av.FFmpegError, OSError, ValueError, IndexError):
            _decode_first(container, limits=self._limits, name=self._name)

    def _opened(
        self, settings: Mapping[str, str], *, format: str | None = None
    ) -> InputContainer | None:
        self._rewind()
        file: Any = f"file:{self._file}" if isinstance(self._file, str) else self._file
        with errors_logged() as lines:
            try:
                container: InputContainer = av.open(
                    file, mode="r", format=format, metadata_errors=_TITLES,
                    options={**self._options, **codec_options(self._limits)},
                    container_options=dict(settings))
            except av.FFmpegError:
                self._check(lines)
                if any("not on whitelist" in line for _, _, line in lines):
                    return None
                raise
        try:
            self._check(lines)
        except BaseException:
            container.close()
            raise
        return container

    def _check(self, lines: Lines) -> None:
        check_logged(lines, limits=self._limits, name=self._name)

    def _protocols(self) -> str:
        return _FILE if isinstance(self._file, str) else _NO_PROTOCOL

    def _rewind(self) -> None:
        if isinstance(self._file, Pipe):
            self._file.rewind()
        elif not isinstance(self._file, str):
            self._file.seek(0)

    def _head(self) -> bytes:
        self._rewind()
        if isinstance(self._file, str):
            with open(self._file, "rb") as file:
                return file.read(_HEAD_BYTES)
        return self._file.read(_HEAD_BYTES)


def _allowing(formats: str, protocols: str, limits: Limits) -> dict[str, str]:
    """Settings for a container: what it may be, and what FFmpeg may open to read it."""
    return {"format_whitelist": formats, "protocol_whitelist": protocols,
            "max_streams": _max_streams(limits),
            # A picture whose name has a '%d' in it stands for itself.
            "pattern_type": "none"}


def _max_streams(limits: Limits) -> str:
    return str(min(limits.streams, INT_MAX))


def _decode_first(container: InputContainer, *, limits: Limits, name: str) -> None:
    """Decode the first pictures of every video stream."""
    open_streams = {}
    for stream in container.streams.video:
        context = stream.codec_context
        if context is not None:
            limits.check_picture(name, context.width, context.height)
            context.options = codec_options(limits)
            open_streams[stream.index] = (
                _H264_PREVIEW_FRAMES if context.name == "h264" else 1)
    num_bytes = 0
    for packet in container.demux():
        num_bytes += packet.size
        if num_bytes > _PREVIEW_BYTES or not any(left > 0 for left in open_streams.values()):
            return
        index = packet.stream_index
        if packet.size and open_streams.get(index, 0) > 0:
            open_streams[index] -= _num_decoded(packet, limits=limits, name=name)


def _num_decoded(packet: Packet[Any], *, limits: Limits, name: str) -> int:
    context = packet.stream.codec_context
    try:
        return len(context.decode(packet))
    except av.FFmpegError:
        check_refused(context, packet, limits=limits, name=name)
        return 0
